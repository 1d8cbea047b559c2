"""
Environment → one frozen dataclass, with all problems reported together.

A setting is a dataclass field declared with :func:`setting`: its variable, parser,
default and meaning. Empty variables count as unset, because an empty Helm value becomes
an empty variable.
"""

import dataclasses
import difflib
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from sidecar_runtime import DOCS
from sidecar_runtime.errors import Problem, SettingsError
from sidecar_runtime.parsers import (
    bind_address,
    boolean,
    choice,
    count,
    duration,
    utf_8,
)

T = TypeVar("T", bound="CommonSettings")
_SPEC = "sidecar_runtime.setting"
_ENDS = f"exit codes and signals: {DOCS}docs/reference/settings.md#exit-codes"

# Settings of earlier versions that every sidecar had, without the prefix, each with what
# to do instead. They are refused: whoever set one expects it to have an effect.
_GONE = {
    "JITTER": "no longer exists: each wait is shifted by up to a tenth; remove it",
    "LOG_FORMAT": "no longer exists: logs are JSON, and lines on a terminal; remove it",
}

# Variables that Kubernetes injects for every Service (`<NAME>_SERVICE_HOST`,
# `<NAME>_PORT`, …):
# https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_INJECTED = re.compile(r"_SERVICE_HOST$|_PORT(_|$)")
# How alike a typo and a name are, as difflib measures it: ONESHOT and ONE_SHOT, BUCKET
# and AWS_BUCKET, but not PATH and DEST_PATH.
_LIKENESS = 0.75

# A URL should not contain a password, but some do; it must not appear in an error.
# It may contain a bare / or @, so everything up to the last @ of the line is hidden.
# The group is atomic: otherwise a long line with many // and no @ would take minutes.
_USERINFO = re.compile(r"^(?>(.*?//)).*@", re.MULTILINE)
# The same in a word without //: a forgotten scheme. In git@HOST:PATH the @ is before
# the colon.
_BARE_USERINFO = re.compile(r"(?<!\S)([\"']?)[^\s:\"']+:(?!//)\S+@")


def without_password(text: str) -> str:
    """
    Return a text without the user names and passwords of the URLs in it.
    """
    return _USERINFO.sub(r"\1***@", _BARE_USERINFO.sub(r"\1***@", text))


class Spec(NamedTuple):
    """
    The declaration of a setting.

    Args:
        variable: Its name, without the sidecar's prefix if `prefixed`.
        parse: Text to value; raises a ``ValueError`` that describes the allowed values.
        text: The description for the reference: meaning, unit, reason for the default.
        default: As a person would write it; with ``None`` the field is ``None`` when
            unset.
        allowed: The allowed values for the reference; by default the description of the
            parser.
        needs: The setting that gives it a meaning, without the prefix, and its values,
            such as ``GATE=syntax or command``; beside another value it is refused,
            because whoever set it expects an effect.
        show: Returns the part of the text that may be displayed.
    """

    variable: str
    parse: Callable[[str], Any]
    text: str
    default: str | None = None
    allowed: str = ""
    needs: str = ""
    prefixed: bool = True
    required: bool = False
    show: Callable[[str], str] = without_password


def setting(variable: str, parse: Callable[[str], Any], **more: Any) -> Any:
    """
    Declare a field that is read from the environment, with the arguments of a
    :class:`Spec`.
    """
    more = {"allowed": getattr(parse, "allowed", ""), **more}
    return dataclasses.field(metadata={_SPEC: Spec(variable, parse, **more)})


@dataclass(frozen=True, kw_only=True)
class CommonSettings:
    """
    The settings of every sidecar; the settings class of a sidecar inherits from it.

    Args:
        variable_prefix: The prefix of the variables that were read, for messages that
            name one.
    """

    variable_prefix: str = ""

    interval_seconds: float = setting(
        "INTERVAL",
        duration(at_least=0.1),
        default="10s",
        prefixed=False,
        text="Time from the start of one regular cycle to that of the next, shifted at random by "
        "up to a tenth.",
    )
    timeout_seconds: float = setting(
        "TIMEOUT",
        duration(at_least=1),
        default="10m",
        text="A cycle that takes longer is abandoned: it counts as failed and cannot publish.",
    )
    max_failures: int = setting(
        "MAX_FAILURES",
        count,
        default="0",
        text="Exit with code 3 after this many consecutive failed cycles. 0: keep trying forever.",
    )
    one_shot: bool = setting(
        "ONE_SHOT",
        boolean,
        default="false",
        text="Exit with code 0 after the first successful cycle (for init containers). Opens no "
        "port.",
    )
    one_shot_deadline_seconds: float = setting(
        "ONE_SHOT_DEADLINE",
        duration(at_least=1),
        default="10m",
        text="A one-shot exits with code 3 if no cycle succeeds within this time.",
    )
    http_bind: tuple[str, int] = setting(
        "HTTP_BIND",
        bind_address,
        text="The address that serves /healthz, /readyz, /metrics and the status page.",
    )
    status_page: bool = setting(
        "STATUS_PAGE",
        boolean,
        default="true",
        text="Serve the status page at / and /status.",
    )
    log_level: str = setting(
        "LOG_LEVEL",
        choice("debug", "info", "warning", "error"),
        default="info",
        text="The lowest level that is logged. Cycles without a change are logged at debug.",
    )


def inherited(field: str, **changes: Any) -> Any:
    """
    Redeclare a setting of :class:`CommonSettings` with another default or text.

    Args:
        changes: Fields to replace in its :class:`Spec`.
    """
    spec: Spec = CommonSettings.__dataclass_fields__[field].metadata[_SPEC]
    return dataclasses.field(metadata={_SPEC: spec._replace(**changes)})


def specs_of(cls: type[Any], prefix: str) -> dict[str, Spec]:
    """
    Return the specs of a settings class by field, with full variable names.

    Required settings come first, then those without a prefix.
    """
    specs = {}
    for field in dataclasses.fields(cls):
        spec: Spec | None = field.metadata.get(_SPEC)
        # a plain default: the sidecar reads this setting from another source
        if spec is None:
            continue
        name = prefix + spec.variable if spec.prefixed else spec.variable
        specs[field.name] = spec._replace(
            variable=name, needs=spec.needs and prefix + spec.needs
        )
    return dict(
        sorted(specs.items(), key=lambda item: (not item[1].required, item[1].prefixed))
    )


def load(
    cls: type[T],
    prefix: str,
    environ: Mapping[str, str],
    *,
    instead: Mapping[str, str] = {},
    gone: Mapping[str, str] = {},
    may_be_idle: bool = False,
    check: Callable[[T], list[Problem]] = lambda _: [],
) -> tuple[T, list[str]]:
    """
    Read a settings class from the environment.

    Args:
        instead: Wrong names of a setting without which a start would do harm, each with
            the right name; refused unless that is set, too.
        gone: Settings of earlier versions of this sidecar, without the prefix, each
            with what to do instead. They are refused whatever their value: one that
            meant "write nothing" must not be passed over by a daemon that writes.
        may_be_idle: Whether settings may be set that need others to have an effect: a
            job of CI has one environment for all commands.
        check: Rules across settings, for settings that are right one by one.

    Returns:
        The settings, and the variables with the prefix that resemble no setting, for a
        warning.

    Raises:
        SettingsError: One or more settings are wrong; it lists all of them. A variable
            with the prefix that resembles a setting is one of them.
    """
    specs = specs_of(cls, prefix)
    names = {spec.variable for spec in specs.values()}
    given = {name: text.strip() for name, text in environ.items() if text.strip()}
    retired = {prefix + name: text for name, text in (_GONE | dict(gone)).items()}
    problems = [Problem(n, given[n], retired[n]) for n in retired if n in given]
    typos, unknown = _check_names(names, prefix, given.keys(), instead, retired)
    problems += typos
    values: dict[str, Any] = {}
    for field, spec in specs.items():
        text = given.get(spec.variable)
        try:
            values[field] = _parse(spec, text, given.keys() - names)
        except ValueError as error:
            problems.append(Problem(spec.variable, spec.show(text or ""), str(error)))
    if not problems and not may_be_idle:
        problems = _without_effect(specs, values, given)
    settings = None if problems else cls(variable_prefix=prefix, **values)
    if settings is None or (problems := check(settings)):
        problems += [Problem(name, None, "is not a setting") for name in unknown]
        raise SettingsError(problems)
    return settings, unknown


def _without_effect(
    specs: Mapping[str, Spec], values: Mapping[str, Any], given: Mapping[str, str]
) -> list[Problem]:
    """
    Return the settings that mean nothing beside the value of the one that they need.
    """
    named = {spec.variable: (spec, values[field]) for field, spec in specs.items()}
    problems = []
    for field, spec in specs.items():
        if not spec.needs or values[field] == _parse(spec, None, ()):
            continue
        name, _, texts = spec.needs.partition("=")
        needed, value = named[name]
        if value not in map(needed.parse, texts.split(" or ")):
            problems.append(
                Problem(
                    spec.variable,
                    spec.show(given[spec.variable]),
                    f"has no effect without {spec.needs}",
                )
            )
    return problems


def _parse(spec: Spec, text: str | None, strangers: Iterable[str]) -> Any:
    """
    Return the value of a setting; `text` is None if it is unset.

    Raises:
        ValueError: It is wrong or missing.
    """
    text = spec.default if text is None else text
    if text is not None:
        return spec.parse(utf_8(text))
    if spec.required:
        near = _nearest(spec.variable, strangers)
        hint = f" ({near} is set: is it a typo?)" if near else ""
        raise ValueError(f"is missing: {spec.allowed}{hint}")
    return None


def _check_names(
    known: Set[str],
    prefix: str,
    given: Set[str],
    instead: Mapping[str, str],
    retired: Mapping[str, str],
) -> tuple[list[Problem], list[str]]:
    """
    Return a problem for each typo, and the names with the prefix that resemble no
    setting.
    """
    strangers = sorted(given - known - retired.keys())
    ours = [n for n in strangers if n.startswith(prefix) and not _INJECTED.search(n)]
    plain = {name.removeprefix(prefix): name for name in {*known, *retired}}
    meant = {n: plain.get(_nearest(n.removeprefix(prefix), plain), "") for n in ours}
    meant |= {
        n: right for n, right in instead.items() if n in given and right not in given
    }
    problems = [
        Problem(
            name,
            None,
            f"is not a setting; did you mean {right}?"
            + (f" That {retired[right]}." if right in retired else ""),
        )
        for name, right in meant.items()
        if right
    ]
    return problems, [name for name, right in meant.items() if not right]


def _nearest(name: str, names: Iterable[str]) -> str:
    """
    Return the name that resembles a typo most; empty if none does.
    """
    return "".join(difflib.get_close_matches(name, sorted(names), 1, _LIKENESS))


def changed_settings(
    cls: type[Any], prefix: str, environ: Mapping[str, str]
) -> dict[str, str]:
    """
    Return the settings that differ from the defaults, as they were written, without
    passwords.
    """
    changed = {}
    for spec in specs_of(cls, prefix).values():
        text = environ.get(spec.variable, "").strip()
        if text not in ("", spec.default):
            changed[spec.variable] = spec.show(text)
    return changed


def describe(cls: type[Any], prefix: str, also: str) -> str:
    """
    Return the settings, exit codes and signals as text for ``--help``.

    Args:
        also: Inputs other than the settings.
    """
    lines = ["settings (environment; an empty variable counts as unset):"]
    for spec in specs_of(cls, prefix).values():
        lines += ["", f"  {spec.variable}  ({_default(spec)})"]
        needs = spec.needs and f"Needs {spec.needs}."
        for text in (spec.text, needs, spec.allowed and f"Allowed: {spec.allowed}."):
            lines += textwrap.wrap(
                text, 88, initial_indent="      ", subsequent_indent="      "
            )
    lines += ["", *textwrap.wrap(f"also reads: {also}", 92, subsequent_indent="  ")]
    return "\n".join([*lines, "", _ENDS, "", f"Documentation: {DOCS}docs/README.md"])


def _default(spec: Spec) -> str:
    if spec.default is None:
        return "required" if spec.required else "unset"
    return f"default {spec.default or 'empty'}"
