"""
Read flags and variables, and decide which of several names for one setting wins.

In git-sync 4 an old name overrides the new one (kubernetes/git-sync, since 4.4); here the new name
wins, unless only the official chart's default sets it. As in git-sync, a flag on the command line
overrides every variable. Empty counts as unset.
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
    Flag,
    OldFlag,
)
from sidecar_runtime.errors import Problem
from sidecar_runtime.settings import without_password

# The query of a URL, which may contain a token.
_QUERY = re.compile(r"(?<=//)([^?]*\?).*")
HIDDEN_FLAG = "__env__"
OURS = "GIT_SYNC_WRAPPER_"
# What `dags.gitSync.branch` and `.ref` are if their user sets neither (official chart, from 1.13.1
# to 1.22.0 at least); the chart always sets both variables.
CHART_REF = "v2-2-stable"


@dataclass(slots=True)
class FlagValues:
    """
    The flags that are set, by their names in git-sync 4.

    Args:
        texts: Each value as git-sync 4 accepts it in a variable.
        origins: The name that was used to set each flag.
    """

    texts: dict[str, str] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    overridden: list[tuple[str, str]] = field(default_factory=list)
    """Names that another name with a different value overrides: (loser, winner)."""
    ignored: list[str] = field(default_factory=list)
    """Arguments that are not flags."""
    problems: list[Problem] = field(default_factory=list)

    def refuse(self, name: str, problem: str) -> None:
        """
        Note a problem with a flag, under the name that was used to set it.
        """
        origin = self.origins.get(name) or f"--{name}"
        self.problems.append(
            Problem(origin, shown(BY_NAME[name], self.texts.get(name, "")), problem)
        )


def shown(flag: Flag, given: str) -> str:
    """
    Return a value for display, without secrets.
    """
    if flag.is_secret and given:
        return "***"
    return _QUERY.sub(r"\1***", without_password(given))


def read_flags(arguments: Sequence[str], environ: Mapping[str, str]) -> FlagValues:
    """
    Return the flags that are set. Every name is parsed, so all mistakes are reported together.
    """
    given = FlagValues()
    line = _read_line(arguments, given)
    for flag in FLAGS:
        found = list(_candidates(flag, line, environ, given))
        if flag.name == "ref":
            found = [item for item in found if not _is_chart_default(*item)] or found[:1]
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


def _is_chart_default(origin: str, value: str) -> bool:
    return not origin.startswith("-") and value == CHART_REF


def _parse(flag: Flag, given: str) -> Any:
    if flag.parse is text and flag.is_repeatable:
        return tuple(given.split(flag.separator))
    return flag.parse(given)


def _candidates(
    flag: Flag, line: Mapping[str, Sequence[str]], environ: Mapping[str, str], given: FlagValues
) -> Iterable[tuple[str, str]]:
    """
    Yield the names that set a flag, the winner first: (name, text).
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
            # pflag leaves them to the program, and git-sync ignores them: `--one-time true`.
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
    Return the flag that a hidden one such as ``--__env__GITSYNC_PASSWORD`` sets.
    """
    variable = name.removeprefix(HIDDEN_FLAG)
    names = [flag.name for flag in FLAGS if flag.variables[:1] == (variable,)]
    return names[0] if names else name
