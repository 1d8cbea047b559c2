"""
What git-sync 4.7.1 may be told: flags over variables over defaults.
"""

from __future__ import annotations

import json
import os
import re
import sys
from typing import Any, NoReturn

# Flag: type, default, variables besides $GITSYNC_FLAG. `*` is $GIT_SYNC_FLAG. `-`: none at all.
# The last variable that is set wins, as in git-sync.
FLAGS: dict[str, tuple[type, Any, str]] = {
    "repo": (str, "", "*"),
    "ref": (str, "HEAD", ""),
    "depth": (int, 1, "*"),
    "filter": (str, "", ""),
    "submodules": (str, "recursive", "*"),
    "sparse-checkout-file": (str, "", "*"),
    "root": (str, "", "*"),
    "link": (str, "", "*"),
    "error-file": (str, "", "*"),
    "init-period": (float, 0.0, ""),
    "period": (float, 10.0, "*"),
    "sync-timeout": (float, 120.0, "*"),
    "one-time": (bool, False, "*"),
    "sync-on-signal": (str, "", "*"),
    "max-failures": (int, 0, "*"),
    "init-max-failures": (int, None, ""),
    "touch-file": (str, "", "*"),
    "add-user": (bool, False, "*"),
    "group-write": (bool, False, "*"),
    "stale-worktree-timeout": (float, 0.0, ""),
    "exechook-command": (str, "", "*"),
    "exechook-timeout": (float, 30.0, "*"),
    "exechook-backoff": (float, 3.0, "*"),
    "webhook-url": (str, "", "*"),
    "webhook-method": (str, "POST", "*"),
    "webhook-success-status": (int, 200, "*"),
    "webhook-timeout": (float, 1.0, "*"),
    "webhook-backoff": (float, 3.0, "*"),
    "username": (str, "", "*"),
    "__env__GITSYNC_PASSWORD": (str, "", "- GITSYNC_PASSWORD GIT_SYNC_PASSWORD"),
    "password-file": (str, "", "*"),
    "credential": (list, (), ""),
    "ssh-key-file": (list, ("/etc/git-secret/ssh",), "* GIT_SSH_KEY_FILE"),
    "ssh-known-hosts": (bool, True, "GIT_SYNC_KNOWN_HOSTS GIT_KNOWN_HOSTS"),
    "ssh-known-hosts-file": (str, "/etc/git-secret/known_hosts", "* GIT_SSH_KNOWN_HOSTS_FILE"),
    "cookie-file": (bool, False, "* GIT_COOKIE_FILE"),
    "askpass-url": (str, "", "* GIT_ASKPASS_URL"),
    "github-base-url": (str, "https://api.github.com/", ""),
    "github-app-private-key-file": (str, "", ""),
    "github-app-client-id": (str, "", ""),
    "github-app-application-id": (int, 0, ""),
    "github-app-installation-id": (int, 0, ""),
    "__env__GITSYNC_GITHUB_APP_PRIVATE_KEY": (str, "", "- GITSYNC_GITHUB_APP_PRIVATE_KEY"),
    "git": (str, "git", "*"),
    "git-config": (str, "", "*"),
    "git-gc": (str, "always", "*"),
    "http-bind": (str, "", "*"),
    "http-metrics": (bool, False, "*"),
    "http-pprof": (bool, False, "*"),
    "verbose": (int, 0, ""),
    "version": (bool, False, "-"),
    "help": (bool, False, "-"),
    "man": (bool, False, "-"),
    # of version 3
    "branch": (str, "", "- GIT_SYNC_BRANCH"),
    "change-permissions": (int, 0, "- GIT_SYNC_PERMISSIONS"),
    "dest": (str, "", "- GIT_SYNC_DEST"),
    "max-sync-failures": (int, 0, "- GIT_SYNC_MAX_SYNC_FAILURES"),
    "password": (str, "", "-"),
    "rev": (str, "", "- GIT_SYNC_REV"),
    "ssh": (bool, False, "-"),
    "sync-hook-command": (str, "", "- GIT_SYNC_HOOK_COMMAND"),
    "timeout": (int, 0, "- GIT_SYNC_TIMEOUT"),
    "v": (int, -1, "-"),
    "wait": (str, "", "- GIT_SYNC_WAIT"),
}
SHORT = {"v": "verbose", "h": "help", "?": "help"}
UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def convert(kind: type, text: str) -> Any:
    """
    The value of a flag. Raises ValueError.
    """
    if kind is bool:
        lowered = text.lower()
        if lowered not in ("1", "t", "true", "0", "f", "false"):
            raise ValueError(text)
        return lowered in ("1", "t", "true")
    if kind is float:
        parts = re.findall(r"([0-9]*\.?[0-9]+)(ns|us|ms|s|m|h)", text)
        if text != "0" and "".join(number + unit for number, unit in parts) != text.lstrip("-"):
            raise ValueError(text)
        total = sum(float(number) * UNITS[unit] for number, unit in parts)
        return -total if text.startswith("-") else total
    return kind(text)


def variables_of(flag: str, names: str) -> list[str]:
    """
    The variables of a flag, the strongest last.
    """
    stem = flag.upper().replace("-", "_")
    found = names.replace("*", f"GIT_SYNC_{stem}").split()
    return found[1:] if found[:1] == ["-"] else [f"GITSYNC_{stem}", *found]


def from_environment() -> dict[str, Any]:
    """
    Defaults, and what the variables say.
    """
    values = {}
    for flag, (kind, default, names) in FLAGS.items():
        values[flag] = default
        for name in variables_of(flag, names):
            text = os.environ.get(name)
            if text is None:
                continue
            try:
                if flag == "credential":
                    values[flag] = json.loads(text)
                elif kind is list:
                    values[flag] = tuple(text.split(":"))
                else:
                    values[flag] = convert(kind, text)
            except ValueError as error:
                sys.exit(f"FATAL: can't parse ${name}: {error}")
    return values


def parse(arguments: list[str]) -> dict[str, Any]:
    """
    The flags over the variables. Ends the process with 2, as pflag does, when it cannot.
    """
    values = from_environment()
    given: dict[str, list[Any]] = {}
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument.startswith("--"):
            flag, equals, text = argument[2:].partition("=")
        elif argument.startswith("-"):
            flag, text = SHORT.get(argument[1:2], argument[1:2]), argument[2:].removeprefix("=")
            equals = text
        else:
            continue
        kind = FLAGS[flag][0] if flag in FLAGS else usage_error(f"unknown flag: {argument}")
        if not equals:
            text = "true" if kind is bool else (rest.pop(0) if rest else "")
        try:
            if flag == "credential":
                found = json.loads(text)
                given.setdefault(flag, []).extend(found if isinstance(found, list) else [found])
            elif kind is list:
                given.setdefault(flag, []).append(text)
            else:
                values[flag] = convert(kind, text)
        except ValueError:
            usage_error(f'invalid argument "{text}" for "--{flag}" flag')
    return values | given


def usage_error(message: str) -> NoReturn:
    """
    End as pflag does.
    """
    print(message, file=sys.stderr)
    sys.exit(2)
