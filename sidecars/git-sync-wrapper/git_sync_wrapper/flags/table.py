"""
Every flag of git-sync 3 and 4, with its names.

Source: git-sync's ``main.go`` and ``env.go`` at v4.7.1 and on its main branch (2026-10).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from git_sync_wrapper.flags import go_values
from git_sync_wrapper.flags.go_values import boolean, duration, git_configs, number, text, whole


class Flag(NamedTuple):
    """
    One flag of git-sync 4.

    Args:
        variables: Its names in the environment, the new one first.
        separator: Separates items in a variable; set only if the flag may be repeated.
        is_secret: Whether its value must never be shown.
    """

    name: str
    parse: Callable[[str], Any]
    variables: tuple[str, ...] = ()
    separator: str = ""
    is_secret: bool = False

    @property
    def is_repeatable(self) -> bool:
        return bool(self.separator)


class OldFlag(NamedTuple):
    """
    A flag of git-sync 3 that is still supported.

    Args:
        instead: The flag of git-sync 4 that it sets.
        convert: Converts its text for the new flag; an empty result sets nothing.
    """

    name: str
    instead: str
    convert: Callable[[str], str] = text
    variables: tuple[str, ...] = ()


def _flag(
    name: str, parse: Callable[[str], Any], *aliases: str, is_new: bool = False, **more: Any
) -> Flag:
    """
    Return a flag whose variable is derived from its name; `is_new`: it has no old name.
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
    _flag("webhook-url", text, is_secret=True),  # some have a token in their path
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
    Return the converter for a number of seconds; 0 sets nothing.
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
    Return the revision, or an empty text for HEAD: then the branch counts.
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
# Flags that need no value on the command line: `--flag` means `--flag=true`.
SWITCHES = {flag.name for flag in FLAGS if flag.parse is boolean} | {"ssh"}

# All variables that any version of git-sync reads.
VARIABLES = frozenset(variable for flag in (*FLAGS, *OLD_FLAGS) for variable in flag.variables) | {
    "GIT_SYNC_SSH"
}
