"""
Environment → one frozen dataclass, with all problems reported together.

A setting is a dataclass field made by :func:`setting`: its variable, how its text is read, what
is allowed, what it means. Empty variables count as unset, because a Helm value that is left
empty arrives as one.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from sidecar_runtime.errors import Problem, SettingsError

T = TypeVar("T")
Parse = Callable[[str], Any]

_SPEC = "sidecar_runtime.setting"

# What Kubernetes injects for a Service, whatever it is called (`<NAME>_SERVICE_HOST`, …):
# https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_INJECTED = re.compile(r"_SERVICE_HOST$|_SERVICE_PORT(_.+)?$|_PORT(_.+)?$")

# A password has no place in a URL, but people put it there; it must not come back in an error.
_USERINFO = re.compile(r"//.*@")


@dataclass(frozen=True, slots=True)
class Spec:
    """
    How one field is read; ``variable`` is the full name, or without prefix where `prefixed`.
    """

    variable: str
    parse: Parse
    default: str | None
    allowed: str
    text: str
    prefixed: bool
    required: bool


def setting(
    variable: str,
    parse: Parse,
    *,
    text: str,
    default: str | None = None,
    allowed: str = "",
    prefixed: bool = True,
    required: bool = False,
) -> Any:
    """
    Declare a field that is read from the environment.

    Args:
        variable: Its name, without the sidecar's prefix where `prefixed`.
        parse: Text to value; raises ``ValueError`` saying what is allowed.
        text: One sentence for the reference: meaning, unit, reason for the default.
        default: As a person would write it; ``None`` makes the field ``None`` when unset.
        allowed: What the reference says is allowed; the parser's own words unless given.
    """
    words = allowed or getattr(parse, "allowed", "")
    spec = Spec(variable, parse, default, words, text, prefixed, required)
    return dataclasses.field(metadata={_SPEC: spec})


def _allows(words: str) -> Callable[[Callable[[str], T]], Callable[[str], T]]:
    def mark(parse: Callable[[str], T]) -> Callable[[str], T]:
        parse.allowed = words  # type: ignore[attr-defined]
        return parse

    return mark


_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+)ms)?")


def duration(at_least: float = 0.0, at_most: float = 7 * 86400.0) -> Callable[[str], float]:
    """
    Return a parser of durations in seconds: ``10``, ``0.5``, ``10s``, ``5m``, ``1h30m``, ``2d``.
    """
    words = "a duration such as 10, 10s, 5m or 1h30m"
    if at_least:
        words += f", {at_least:g}s or more"

    @_allows(words)
    def parse(text: str) -> float:
        compact = text.strip().replace(" ", "")
        if re.fullmatch(r"\d+(\.\d+)?", compact):
            seconds = float(compact)
        else:
            match = _DURATION.fullmatch(compact)
            if not compact or match is None:
                raise ValueError(f"is not {words}")
            days, hours, minutes, secs, millis = (float(part or 0) for part in match.groups())
            seconds = days * 86400 + hours * 3600 + minutes * 60 + secs + millis / 1000
        if not at_least <= seconds <= at_most:
            raise ValueError(f"is not between {at_least:g}s and {at_most:g}s")
        return seconds

    return parse


@_allows("true or false, in any case")
def boolean(text: str) -> bool:
    """
    Read ``true`` or ``false`` (also ``yes``/``no``, ``on``/``off``, ``1``/``0``), in any case.
    """
    word = text.strip().lower()
    if word in {"true", "yes", "on", "1"}:
        return True
    if word in {"false", "no", "off", "0"}:
        return False
    raise ValueError("is not true or false")


@_allows("a whole number, 0 or more")
def count(text: str) -> int:
    """
    Read a whole number, 0 or more.
    """
    if not re.fullmatch(r"\d{1,9}", text.strip()):
        raise ValueError("is not a whole number, 0 or more")
    return int(text)


_DECIMAL_MODES = {str(mode) for mode in (0o600, 0o640, 0o644, 0o660, 0o664)}


@_allows('an octal mode such as "0644"')
def mode(text: str) -> int:
    """
    Read a file mode in octal; the owner must be able to read.

    YAML makes 420 of an unquoted 0644; such a number is refused, not obeyed.
    """
    if not re.fullmatch(r"0?[0-7]{3}", text.strip()) or text.strip() in _DECIMAL_MODES:
        raise ValueError('is not an octal mode such as "0644", in quotes')
    value = int(text, 8)
    if not value & 0o400:
        raise ValueError("does not let the owner read")
    return value


@_allows("a comma-separated list")
def words(text: str) -> tuple[str, ...]:
    """
    Read a comma-separated list; blanks around items and empty items are dropped.
    """
    return tuple(item.strip() for item in text.split(",") if item.strip())


def choice(*options: str) -> Callable[[str], str]:
    """
    Return a parser that takes one of the options, in any case.
    """

    @_allows(" or ".join(options))
    def parse(text: str) -> str:
        word = text.strip().lower()
        if word not in options:
            raise ValueError(f"is not one of {', '.join(options)}")
        return word

    return parse


@_allows("an absolute path")
def absolute_path(text: str) -> str:
    """
    Read an absolute path, normalised; the root of the file system is refused.
    """
    if "\0" in text or not text.startswith("/"):
        raise ValueError("is not an absolute path")
    path = os.path.normpath("/" + text.lstrip("/"))
    if path == "/":
        raise ValueError("is the root of the file system; name a folder of its own")
    return path


@_allows("a URL such as http://minio:9000")
def http_url(text: str) -> str:
    """
    Read an http or https URL.
    """
    try:
        url = urlsplit(text.strip())
        is_fine = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        is_fine = False
    if not is_fine:
        raise ValueError("is not http(s)://HOST[:PORT]")
    return text.strip()


@_allows("HOST:PORT or :PORT, such as :9811, 127.0.0.1:9811 or [::1]:9811")
def bind_address(text: str) -> tuple[str, int]:
    """
    Read a listening address; an empty host means all addresses, IPv4 and IPv6.
    """
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%\w]+)\]|([^:\[\]]*)):(\d{1,5})", text.strip())
    if match is None or int(match[3]) > 65535:
        raise ValueError("is not HOST:PORT or :PORT, such as :9811 or 127.0.0.1:9811")
    return (match[1] or match[2] or ""), int(match[3])


@dataclass(frozen=True, kw_only=True)
class CommonSettings:
    """
    The settings that every sidecar has; a sidecar's own class inherits from it.
    """

    interval_seconds: float = setting(
        "INTERVAL",
        duration(at_least=0.1),
        default="10s",
        prefixed=False,
        text="Time from the start of one cycle to the start of the next.",
    )
    jitter_seconds: float | None = setting(
        "JITTER",
        duration(),
        text="Each start moves by up to this much, to spread a fleet. Unset: a tenth of INTERVAL.",
    )
    timeout_seconds: float = setting(
        "TIMEOUT",
        duration(at_least=1),
        default="10m",
        text="A cycle that takes longer is abandoned, counted as failed, and never publishes.",
    )
    max_failures: int = setting(
        "MAX_FAILURES",
        count,
        default="0",
        text="Exit with code 3 after this many failed cycles in a row. 0: never, keep trying.",
    )
    one_shot: bool = setting(
        "ONE_SHOT",
        boolean,
        default="false",
        text="Exit 0 after the first successful cycle (init containers). Binds no port.",
    )
    one_shot_deadline_seconds: float = setting(
        "ONE_SHOT_DEADLINE",
        duration(at_least=1),
        default="10m",
        text="A one-shot without success by then exits with code 3.",
    )
    http_bind: tuple[str, int] = setting(
        "HTTP_BIND",
        bind_address,
        text="Where /healthz, /readyz, /metrics and the status page listen.",
    )
    status_page: bool = setting(
        "STATUS_PAGE", boolean, default="true", text="Serve / and /status for people."
    )
    log_level: str = setting(
        "LOG_LEVEL",
        choice("debug", "info", "warning", "error"),
        default="info",
        text="The least level that is logged; cycles without change are at debug.",
    )
    log_format: str | None = setting(
        "LOG_FORMAT",
        choice("json", "console"),
        text="Unset: console on a terminal, json elsewhere.",
    )
    dry_run: bool = setting(
        "DRY_RUN", boolean, default="false", text="Plan and log, but change nothing."
    )


def specs_of(cls: type[Any], prefix: str) -> dict[str, Spec]:
    """
    Return the specs of a settings class by field, with full variable names.

    What must be set comes first, then what carries no prefix.
    """
    specs = {}
    for field in dataclasses.fields(cls):
        spec: Spec | None = field.metadata.get(_SPEC)
        if spec is None:  # a sidecar that has it from elsewhere gives it a plain default
            continue
        name = prefix + spec.variable if spec.prefixed else spec.variable
        specs[field.name] = dataclasses.replace(spec, variable=name)
    return dict(sorted(specs.items(), key=lambda item: (not item[1].required, item[1].prefixed)))


def names_of(cls: type[Any], prefix: str) -> frozenset[str]:
    """
    Return the full names of all variables that a settings class reads.
    """
    return frozenset(spec.variable for spec in specs_of(cls, prefix).values())


def describe(cls: type[Any], prefix: str) -> str:
    """
    Return the settings as text for ``--help``.
    """
    lines = ["settings (environment):"]
    for spec in specs_of(cls, prefix).values():
        default = "required" if spec.required else f"default {spec.default or 'none'}"
        lines.append(f"  {spec.variable}  ({default})")
        lines += textwrap.wrap(spec.text, 88, initial_indent="      ", subsequent_indent="      ")
    return "\n".join(lines)


def load(
    cls: type[T],
    prefix: str,
    environ: Mapping[str, str],
    *,
    instead: Mapping[str, str],
    check: Callable[[T], list[Problem]] = lambda _: [],
) -> tuple[T, list[str]]:
    """
    Read a settings class from the environment.

    Args:
        instead: Names that people will type, mapped to the right ones.
        check: Rules across settings; called when every single one is fine.

    Returns:
        The settings, and the variables that may be slips (worth a warning): those with our
        prefix that resemble nothing, and those without that resemble a setting that is unset.

    Raises:
        SettingsError: One or more settings are wrong; all of them are named.
    """
    specs = specs_of(cls, prefix)
    known = names_of(cls, prefix)
    problems, unknown = _check_names(prefix, known, environ, instead)
    values: dict[str, Any] = {}
    for field, spec in specs.items():
        raw = environ.get(spec.variable, "").strip()
        text = raw or spec.default
        if text is None:
            if spec.required:
                problems.append(_missing(spec, known, environ))
            values[field] = None
            continue
        try:
            values[field] = spec.parse(text)
        except ValueError as error:
            problems.append(Problem(spec.variable, _USERINFO.sub("//***@", raw), str(error)))
    if problems:
        raise SettingsError(problems, unknown)
    settings = cls(**values)
    if problems := check(settings):
        raise SettingsError(problems, unknown)
    return settings, unknown


def _missing(spec: Spec, known: frozenset[str], environ: Mapping[str, str]) -> Problem:
    near = difflib.get_close_matches(spec.variable, sorted(set(environ) - known), 1, cutoff=0.8)
    hint = f" (there is {near[0]}: a slip?)" if near else ""
    return Problem(spec.variable, "", f"is missing: {spec.allowed}{hint}")


def _check_names(
    prefix: str, known: frozenset[str], environ: Mapping[str, str], instead: Mapping[str, str]
) -> tuple[list[Problem], list[str]]:
    """
    Sort the variables with our prefix that nobody reads into slips (errors) and strangers.
    """
    problems, unknown = [], []
    plain = {name.removeprefix(prefix): name for name in sorted(known)}
    for name in sorted(environ):
        if not name.startswith(prefix) or name in known or _INJECTED.search(name):
            continue
        near = difflib.get_close_matches(name.removeprefix(prefix), plain, 1, cutoff=0.75)
        right = instead.get(name) or (plain[near[0]] if near else None)
        if right:
            problems.append(Problem(name, "", f"is not a setting; the right name is {right}"))
        else:
            unknown.append(name)
    for name in sorted(known - environ.keys()):
        if not name.startswith(prefix):  # KEYPATH: nothing of ours, but close to it
            # AWS_* has a hundred names of its own.
            others = [o for o in environ if o not in known and not o.startswith("AWS_")]
            unknown += difflib.get_close_matches(name, others, 1, cutoff=0.9)
    return problems, unknown
