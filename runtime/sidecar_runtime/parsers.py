"""
Parsers of settings: text to value, or a ``ValueError`` that describes the allowed
values.

A parser's attribute ``allowed`` describes the allowed values for the reference.
"""

import os
import re
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def allows(words: str) -> Callable[[Callable[[str], T]], Callable[[str], T]]:
    """
    Return a decorator that sets the description of a parser's allowed values.
    """

    def mark(parse: Callable[[str], T]) -> Callable[[str], T]:
        parse.allowed = words  # type: ignore[attr-defined]
        return parse

    return mark


def utf_8(text: str) -> str:
    """
    Return the text; any setting may be shown, and no answer can contain half a
    character.

    Raises:
        ValueError: It contains one, from a byte in the environment or an escape in
            JSON.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("is not UTF-8") from None
    return text


# A bare number, or days, hours, minutes, seconds and milliseconds.
_NUMBER = r"(\d+(?:\.\d+)?)"
_DURATION = re.compile(
    rf"{_NUMBER}|(?:{_NUMBER}d)?(?:{_NUMBER}h)?(?:{_NUMBER}m(?!s))?(?:{_NUMBER}s)?(?:{_NUMBER}ms)?"
)
_DURATION_SECONDS = (1, 86400, 3600, 60, 1, 0.001)


YEAR_SECONDS = 365 * 86400.0


def duration(
    at_least: float = 0.0, at_most: float = 7 * 86400.0
) -> Callable[[str], float]:
    """
    Return a parser of durations to seconds: ``10``, ``0.5``, ``10s``, ``5m``,
    ``1h30m``, ``2d``.
    """
    most = f"{at_most:g}s" if at_most % 86400 else f"{at_most / 86400:g}d"
    words = f"a duration such as 10, 10s, 5m or 1h30m, from {at_least:g}s to {most}"

    @allows(words)
    def parse(text: str) -> float:
        match = _DURATION.fullmatch(text.replace(" ", ""))
        if text.strip() and match:
            given = zip(match.groups("0"), _DURATION_SECONDS, strict=True)
            seconds = sum(float(number) * unit for number, unit in given)
            if at_least <= seconds <= at_most:
                return seconds
        raise ValueError(f"is not {words}")

    return parse


TRUE = {"true", "yes", "on", "1"}
FALSE = {"false", "no", "off", "0"}


@allows("true or false, in any case")
def boolean(text: str) -> bool:
    """
    Parse ``true`` or ``false`` (also ``yes``/``no``, ``on``/``off``, ``1``/``0``), in
    any case.
    """
    word = text.lower()
    if word not in TRUE | FALSE:
        raise ValueError("is not true or false")
    return word in TRUE


@allows("a whole number, 0 or more")
def count(text: str) -> int:
    """
    Parse a whole number, 0 or more.
    """
    if not re.fullmatch(r"\d{1,9}", text):
        raise ValueError("is not a whole number, 0 or more")
    return int(text)


_DECIMAL_MODES = {str(mode) for mode in (0o600, 0o640, 0o644, 0o660, 0o664)}


@allows('an octal mode such as "0644"')
def mode(text: str) -> int:
    """
    Parse an octal file mode; the owner must have read permission.

    YAML turns an unquoted 0644 into 420; the decimal values of common modes are
    refused.
    """
    if not re.fullmatch(r"0?[0-7]{3}", text) or text in _DECIMAL_MODES:
        raise ValueError('is not an octal mode such as "0644", in quotes')
    value = int(text, 8)
    if not value & 0o400:
        raise ValueError("does not allow the owner to read")
    return value


@allows("a comma-separated list")
def words(text: str) -> tuple[str, ...]:
    """
    Parse a comma-separated list; spaces around items and empty items are dropped.
    """
    return tuple(item.strip() for item in text.split(",") if item.strip())


def choice(*options: str) -> Callable[[str], str]:
    """
    Return a parser that accepts one of the options, in any case.
    """

    @allows(" or ".join(options))
    def parse(text: str) -> str:
        word = text.lower()
        if word not in options:
            raise ValueError(f"is not one of {', '.join(options)}")
        return word

    return parse


@allows("an absolute path")
def absolute_path(text: str) -> str:
    """
    Parse and normalize an absolute path; the root of the file system is refused.
    """
    if "\0" in text or not text.startswith("/"):
        raise ValueError("is not an absolute path")
    path = os.path.normpath("/" + text.lstrip("/"))
    if path == "/":
        raise ValueError("is the root of the file system; set a folder below it")
    return path


@allows("HOST:PORT or :PORT, such as :9811, 127.0.0.1:9811 or [::1]:9811")
def bind_address(text: str) -> tuple[str, int]:
    """
    Parse a listening address; an empty host means all addresses, IPv4 and IPv6.
    """
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%\w]+)\]|([^:\[\]]*)):(\d{1,5})", text)
    if match is None or int(match[3]) > 65535:
        raise ValueError("is not HOST:PORT or :PORT, such as :9811 or 127.0.0.1:9811")
    return (match[1] or match[2] or ""), int(match[3])
