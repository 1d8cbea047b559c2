"""
Reading flags: what is set, and which of several names that are set counts.

In git-sync 4 an old name beats the new one (kubernetes/git-sync, since 4.4); here the new one
wins. A flag on the command line beats every variable, as there. Empty counts as unset.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from git_sync_wrapper.flags.go_values import text
from git_sync_wrapper.flags.table import (
    BY_NAME,
    FLAGS,
    OLD_BY_NAME,
    OLD_FLAGS,
    SWITCHES,
    VARIABLES,
    Flag,
    OldFlag,
)
from sidecar_runtime.errors import Problem

# A password in a URL, of a repository or of a webhook; one with a bare / or @ in it too.
_USERINFO = re.compile(r"(?<=//).*@")
# What is asked for in a URL, which may be a token.
_QUERY = re.compile(r"(?<=//)([^?]*\?).*")
HIDDEN_FLAG = "__env__"


@dataclass(slots=True)
class FlagValues:
    """
    What is set, by the names of git-sync 4.

    Args:
        texts: Each value as git-sync 4 would take it in a variable.
        origins: The name under which it was given.
    """

    texts: dict[str, str] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    overridden: list[tuple[str, str]] = field(default_factory=list)
    """Names that lost against another with another value: (loser, winner)."""
    ignored: list[str] = field(default_factory=list)
    """Arguments that are not flags."""
    problems: list[Problem] = field(default_factory=list)

    def refuse(self, name: str, problem: str) -> None:
        """
        Note what is wrong with a flag, under the name that it was given by.
        """
        origin = self.origins.get(name) or f"--{name}"
        self.problems.append(
            Problem(origin, shown(BY_NAME[name], self.texts.get(name, "")), problem)
        )


def shown(flag: Flag, given: str) -> str:
    """
    Return a value as it may be shown.
    """
    if flag.is_secret and given:
        return "***"
    return _QUERY.sub(r"\1***", _USERINFO.sub("***@", given))


def read_flags(arguments: Sequence[str], environ: Mapping[str, str]) -> FlagValues:
    """
    Decide what is set; every name that is given is read, so that no slip hides behind another.
    """
    given = FlagValues()
    line = _read_line(arguments, given)
    for flag in FLAGS:
        found = list(_candidates(flag, line, environ, given))
        if not found:
            continue
        origin, winner = found[0]
        for loser, other in found[1:]:
            if other != winner:
                given.overridden.append((loser, origin))
        try:
            given.values[flag.name] = _parse(flag, winner)
        except ValueError as error:
            given.problems.append(Problem(origin, shown(flag, winner), str(error)))
            continue
        given.texts[flag.name] = winner
        given.origins[flag.name] = origin
    return given


def _parse(flag: Flag, given: str) -> Any:
    if flag.parse is text and flag.is_repeatable:
        return tuple(given.split(flag.separator))
    return flag.parse(given)


def _candidates(
    flag: Flag, line: Mapping[str, Sequence[str]], environ: Mapping[str, str], given: FlagValues
) -> Iterable[tuple[str, str]]:
    """
    Yield what sets a flag, the strongest first: (name, text).
    """
    old_flags = [old for old in OLD_FLAGS if old.instead == flag.name]
    if items := [item for item in line.get(flag.name, ()) if item]:
        yield f"--{flag.name}", _joined(flag, items) if flag.is_repeatable else items[-1]
    for old in old_flags:
        yield from _converted(f"--{old.name}", line.get(old.name, ("",))[-1], old, given)
    for variable in flag.variables:
        if value := environ.get(variable, ""):
            yield variable, value
    for old in old_flags:
        for variable in old.variables:
            yield from _converted(variable, environ.get(variable, ""), old, given)


def _joined(flag: Flag, items: Sequence[str]) -> str:
    if flag.name != "credential":
        return flag.separator.join(items)
    # Objects and lists of objects become one list.
    inner = [item.strip().removeprefix("[").removesuffix("]") for item in items]
    return f"[{','.join(part for part in inner if part.strip())}]"


def _converted(origin: str, raw: str, old: OldFlag, given: FlagValues) -> Iterable[tuple[str, str]]:
    if not raw:
        return
    try:
        value = old.convert(raw)
    except ValueError as error:
        given.problems.append(Problem(origin, raw, str(error)))
        return
    if value:
        yield origin, value


def _read_line(arguments: Sequence[str], given: FlagValues) -> dict[str, list[str]]:
    """
    Read a command line as pflag does: ``--flag=value``, ``--flag value``, ``-v3``.
    """
    found: dict[str, list[str]] = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word.startswith("-v") and word != "-v" and not word.startswith("--"):
            word = f"--verbose={word[2:].removeprefix('=')}"
        name, has_value, value = word.removeprefix("--").partition("=")
        name = {"-v": "verbose"}.get(name, name)
        if name.startswith(HIDDEN_FLAG):
            name = _hidden(name)
        if not word.startswith("-") or word == "--":
            # As pflag, which leaves them to a program that does not look: `--one-time true`.
            given.ignored += [word] if word != "--" else rest
            rest = [] if word == "--" else rest
            continue
        if name not in BY_NAME and name not in OLD_BY_NAME:
            given.problems.append(Problem(word.partition("=")[0], "", "is not a flag of git-sync"))
            continue
        if not has_value and name in SWITCHES:
            value = "true"
        elif not has_value:
            if not rest:
                given.problems.append(Problem(f"--{name}", "", "needs a value"))
                continue
            value = rest.pop(0)
        found.setdefault(name, []).append(value)
    return found


def _hidden(name: str) -> str:
    """
    Return the flag behind ``--__env__GITSYNC_PASSWORD`` and the like.
    """
    variable = name.removeprefix(HIDDEN_FLAG)
    names = [flag.name for flag in FLAGS if flag.variables[:1] == (variable,)]
    return names[0] if names else name


def strangers(environ: Mapping[str, str]) -> dict[str, str]:
    """
    Return the variables that look like git-sync's but are not, with the ones they resemble.

    git-sync ignores them without a word: ``GIT_SYNC_REF`` is one that people write.
    """
    known = sorted(VARIABLES)
    alike = [
        name
        for name in sorted(environ.keys() - VARIABLES)
        if name.startswith(("GITSYNC_", "GIT_SYNC_")) and not name.startswith("GIT_SYNC_WRAPPER_")
    ]
    if not alike:
        return {}
    import difflib  # noqa: PLC0415 - most have none

    return {
        name: right
        for name in alike
        for right in difflib.get_close_matches(name, known, 1, cutoff=0.85)
    }
