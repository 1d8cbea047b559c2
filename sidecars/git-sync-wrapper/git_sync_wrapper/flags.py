"""
Every flag of git-sync 3 and 4: its names, and which of several that are set counts.

The sources are git-sync's ``main.go`` and ``env.go`` at v4.7.1 and on its main branch (2026-10).
In git-sync 4 an old name beats the new one (kubernetes/git-sync, since 4.4); here the new one
wins. A flag on the command line beats every variable, as there. Empty counts as unset.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from git_sync_wrapper import go_values
from git_sync_wrapper.go_values import boolean, duration, git_configs, number, text, whole
from sidecar_runtime.errors import Problem

# A password in a URL, of a repository or of a webhook; one with a bare / or @ in it too.
_USERINFO = re.compile(r"(?<=//).*@")
HIDDEN_FLAG = "__env__"


@dataclass(frozen=True, slots=True)
class Flag:
    """
    One flag of git-sync 4.

    Args:
        variables: Its names in the environment, the new one first.
        separator: Of the items in a variable, where the flag may be given several times.
        is_secret: Whether its value is never to be shown.
    """

    name: str
    parse: Callable[[str], Any]
    variables: tuple[str, ...] = ()
    separator: str = ""
    is_secret: bool = False

    @property
    def is_repeatable(self) -> bool:
        return bool(self.separator)


@dataclass(frozen=True, slots=True)
class OldFlag:
    """
    A flag of git-sync 3 that still counts.

    Args:
        instead: The flag of git-sync 4 that it sets.
        convert: Its text to the other's; empty where it says nothing.
    """

    name: str
    instead: str
    convert: Callable[[str], str] = text
    variables: tuple[str, ...] = ()


def _both(*names: str) -> tuple[str, ...]:
    return tuple(f"{prefix}{name}" for name in names for prefix in ("GITSYNC_", "GIT_SYNC_"))


def _flag(
    name: str, parse: Callable[[str], Any], *aliases: str, is_new: bool = False, **more: Any
) -> Flag:
    """
    Return a flag whose variable follows from its name; `is_new`: it has no alias.
    """
    base = name.upper().replace("-", "_")
    variables = (f"GITSYNC_{base}",) if is_new else (f"GITSYNC_{base}", f"GIT_SYNC_{base}")
    return Flag(name, parse, (*variables, *aliases), **more)


FLAGS = (
    _flag("verbose", whole, is_new=True),
    _flag("repo", text),
    _flag("ref", text, is_new=True),
    _flag("depth", whole),
    _flag("filter", text, is_new=True),
    _flag("submodules", text),
    _flag("sparse-checkout-file", text),
    _flag("root", text),
    _flag("link", text),
    _flag("error-file", text),
    _flag("init-period", duration, is_new=True),
    _flag("period", duration),
    _flag("sync-timeout", duration),
    _flag("one-time", boolean),
    _flag("sync-on-signal", text),
    _flag("max-failures", whole),
    _flag("init-max-failures", whole, is_new=True),
    _flag("touch-file", text),
    _flag("add-user", boolean),
    _flag("group-write", boolean),
    _flag("stale-worktree-timeout", duration, is_new=True),
    _flag("exechook-command", text),
    _flag("exechook-timeout", duration),
    _flag("exechook-backoff", duration),
    _flag("pre-publish-exechook-command", text, is_new=True),
    _flag("pre-publish-exechook-timeout", duration, is_new=True),
    _flag("pre-publish-exechook-backoff", duration, is_new=True),
    _flag("webhook-url", text),
    _flag("webhook-method", text),
    _flag("webhook-success-status", whole),
    _flag("webhook-timeout", duration),
    _flag("webhook-backoff", duration),
    _flag("username", text),
    _flag("password", text, is_secret=True),
    _flag("password-file", text),
    _flag("credential", go_values.credentials, is_new=True, is_secret=True, separator=","),
    _flag("ssh-key-file", text, "GIT_SSH_KEY_FILE", separator=":"),
    Flag(
        "ssh-known-hosts",
        boolean,
        ("GITSYNC_SSH_KNOWN_HOSTS", "GIT_SYNC_KNOWN_HOSTS", "GIT_KNOWN_HOSTS"),
    ),
    _flag("ssh-known-hosts-file", text, "GIT_SSH_KNOWN_HOSTS_FILE"),
    _flag("cookie-file", boolean, "GIT_COOKIE_FILE"),
    _flag("askpass-url", text, "GIT_ASKPASS_URL"),
    _flag("github-base-url", text, is_new=True),
    _flag("github-app-private-key", text, is_new=True, is_secret=True),
    _flag("github-app-private-key-file", text, is_new=True),
    _flag("github-app-client-id", text, is_new=True),
    _flag("github-app-application-id", whole, is_new=True),
    _flag("github-app-installation-id", whole, is_new=True),
    _flag("git", text),
    _flag("git-config", git_configs, is_secret=True),  # it may hold http.extraHeader
    Flag("git-config-add", git_configs, separator=",", is_secret=True),
    _flag("git-gc", text),
    _flag("http-bind", text),
    _flag("http-metrics", boolean),
    _flag("http-pprof", boolean),
)
BY_NAME = {flag.name: flag for flag in FLAGS}


def _seconds(read: Callable[[str], float]) -> Callable[[str], str]:
    """
    Return the conversion of a number of seconds; 0 says nothing.
    """

    def convert(given: str) -> str:
        milliseconds = int(read(given) * 1000)
        return f"{milliseconds}ms" if milliseconds else ""

    return convert


def _failures(given: str) -> str:
    return given if whole(given) else ""


def _unsupported(given: str) -> str:
    if whole(given):
        raise ValueError("is no longer supported; --group-write makes files group writable")
    return ""


def _no_head(given: str) -> str:
    """
    A revision of HEAD says nothing: the branch counts.
    """
    return "" if given == "HEAD" else given


OLD_FLAGS = (
    OldFlag("rev", "ref", _no_head, ("GIT_SYNC_REV",)),
    OldFlag("branch", "ref", text, ("GIT_SYNC_BRANCH",)),
    OldFlag("dest", "link", text, ("GIT_SYNC_DEST",)),
    OldFlag("wait", "period", _seconds(number), ("GIT_SYNC_WAIT",)),
    OldFlag("timeout", "sync-timeout", _seconds(whole), ("GIT_SYNC_TIMEOUT",)),
    OldFlag("max-sync-failures", "max-failures", _failures, ("GIT_SYNC_MAX_SYNC_FAILURES",)),
    OldFlag("sync-hook-command", "exechook-command", text, ("GIT_SYNC_HOOK_COMMAND",)),
    OldFlag("change-permissions", "group-write", _unsupported, ("GIT_SYNC_PERMISSIONS",)),
    OldFlag("v", "verbose"),
    OldFlag("ssh", "verbose", lambda _: ""),  # ignored; it has no variable
)
OLD_BY_NAME = {flag.name: flag for flag in OLD_FLAGS}
# What takes no value on the command line: `--flag` is `--flag=true`.
_SWITCHES = {flag.name for flag in FLAGS if flag.parse is boolean} | {"ssh"}

# All variables that mean something to git-sync, whatever its version.
VARIABLES = frozenset(variable for flag in (*FLAGS, *OLD_FLAGS) for variable in flag.variables) | {
    "GIT_SYNC_SSH"
}


@dataclass(slots=True)
class Given:
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
    return "***" if flag.is_secret and given else _USERINFO.sub("***@", given)


def read_flags(arguments: Sequence[str], environ: Mapping[str, str]) -> Given:
    """
    Decide what is set; every name that is given is read, so that no slip hides behind another.
    """
    given = Given()
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
    flag: Flag, line: Mapping[str, Sequence[str]], environ: Mapping[str, str], given: Given
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


def _converted(origin: str, raw: str, old: OldFlag, given: Given) -> Iterable[tuple[str, str]]:
    if not raw:
        return
    try:
        value = old.convert(raw)
    except ValueError as error:
        given.problems.append(Problem(origin, raw, str(error)))
        return
    if value:
        yield origin, value


def _read_line(arguments: Sequence[str], given: Given) -> dict[str, list[str]]:
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
        if not word.startswith("-") or (name not in BY_NAME and name not in OLD_BY_NAME):
            given.problems.append(Problem(word.partition("=")[0], "", "is no flag of git-sync"))
            continue
        if not has_value and name in _SWITCHES:
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


def strangers(environ: Mapping[str, str]) -> list[tuple[str, str]]:
    """
    Return the variables that look like git-sync's but are not, with the ones they resemble.

    git-sync ignores them without a word: ``GIT_SYNC_REF`` is one that people write.
    """
    ours = [name for name in environ if name.startswith(("GITSYNC_", "GIT_SYNC_"))]
    found = []
    for name in sorted(ours):
        if name in VARIABLES or name.startswith("GIT_SYNC_WRAPPER_"):
            continue
        near = difflib.get_close_matches(name, sorted(VARIABLES), 1, cutoff=0.85)
        found += [(name, right) for right in near]
    return found
