"""
Read values as git-sync does: Go's numbers, booleans and durations, and lists of git configs.

Each reader raises ``ValueError`` with the problem, which does not repeat the value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

_WHOLE = re.compile(r"[+-]?(0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO]?[0-7]*|[1-9][0-9]*)")
_TRUE = {"1", "t", "T", "TRUE", "true", "True"}
_FALSE = {"0", "f", "F", "FALSE", "false", "False"}
_PART = r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)"
_DURATION = re.compile(rf"[+-]?(0|(?:{_PART})+)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
_ESCAPES = {"\\": "\\", '"': '"', "n": "\n", "t": "\t", ",": ","}


def text(given: str) -> str:
    """
    Read any text.
    """
    return given


def whole(given: str) -> int:
    """
    Read a whole number as ``strconv.ParseInt`` with base 0 does.
    """
    match = _WHOLE.fullmatch(given)
    if match is None:
        raise ValueError("is not a whole number")
    digits = match[1]
    is_old_octal = len(digits) > 1 and digits[0] == "0" and digits[1].isdigit()
    number = int(digits, 8 if is_old_octal else 0)
    return -number if given.startswith("-") else number


def boolean(given: str) -> bool:
    """
    Read a boolean as ``strconv.ParseBool`` does.
    """
    if given in _TRUE:
        return True
    if given in _FALSE:
        return False
    raise ValueError("is not true or false (or 1, t, T, TRUE, True, 0, f, F, FALSE, False)")


def duration(given: str) -> float:
    """
    Return the seconds of a duration as ``time.ParseDuration`` reads it: ``10s``, ``1m30s``.
    """
    if not _DURATION.fullmatch(given):
        raise ValueError("is not a duration with a unit, such as 10s, 500ms or 1m30s")
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in re.findall(_PART, given))
    return -seconds if given.startswith("-") else seconds


def number(given: str) -> float:
    """
    Read a decimal number.
    """
    if not re.fullmatch(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", given):
        raise ValueError("is not a number of seconds, such as 30 or 0.5")
    return float(given)


@dataclass(frozen=True, slots=True)
class GivenCredential:
    """
    One ``--credential``: the login for all URLs that begin with this one.
    """

    url: str
    username: str
    password: str = ""
    password_file: str = ""

    def __repr__(self) -> str:
        return f"GivenCredential({self.username!r} for one URL)"


def credentials(given: str) -> tuple[GivenCredential, ...]:
    """
    Read a JSON object or list of credentials.
    """
    if not given.strip():
        return ()
    try:
        found = json.loads(given)
    except ValueError:
        raise ValueError("is not JSON") from None
    items = found if isinstance(found, list) else [found]
    return tuple(_credential(item) for item in items)


def _credential(item: object) -> GivenCredential:
    if not isinstance(item, dict) or not all(isinstance(value, str) for value in item.values()):
        raise ValueError("is not a JSON object of strings, or a list of such objects")
    if unknown := sorted(item.keys() - {"url", "username", "password", "password-file"}):
        raise ValueError(f"has an unknown field {unknown[0]!r}")
    for name in ("url", "username"):
        if not item.get(name):
            raise ValueError(f"has no {name}")
    if bool(item.get("password")) == bool(item.get("password-file")):
        raise ValueError("needs either password or password-file")
    return GivenCredential(
        item["url"], item["username"], item.get("password", ""), item.get("password-file", "")
    )


def git_configs(given: str) -> tuple[tuple[str, str], ...]:
    """
    Read ``section.key:value,"section.sub.key":"value"``; a backslash escapes special characters.
    """
    return tuple(_configs(iter(given)))


def _configs(rest: Iterator[str]) -> Iterator[tuple[str, str]]:
    while (first := next(rest, None)) is not None:
        key = _quoted(rest) if first == '"' else first + _plain_key(rest)
        if first == '"' and next(rest, None) != ":":
            raise ValueError("has no colon after a quoted key")
        first = next(rest, None)
        if first is None:
            raise ValueError(f"has no value for {key!r}")
        if first != '"':
            # As git-sync: the first character belongs to the value, whatever it is.
            yield key, first + "".join(_unescaped(rest, ","))
            continue
        value = _quoted(rest)
        if next(rest, ",") != ",":
            raise ValueError(f"has text between the value of {key!r} and the next comma")
        yield key, value


def _plain_key(rest: Iterator[str]) -> str:
    taken = ""
    for character in rest:
        if character == ":":
            return taken
        taken += character
    raise ValueError("has no colon after a key")


def _quoted(rest: Iterator[str]) -> str:
    return "".join(_unescaped(rest, '"', must_end=True))


def _unescaped(rest: Iterator[str], end: str, *, must_end: bool = False) -> Iterator[str]:
    for character in rest:
        if character == end:
            return
        if character == "\\":
            escaped = next(rest, "")
            if escaped not in _ESCAPES or not escaped:
                raise ValueError('has a backslash before a character other than \\ " n t ,')
            yield _ESCAPES[escaped]
        else:
            yield character
    if must_end:
        raise ValueError("has an opening quote without a closing one")
