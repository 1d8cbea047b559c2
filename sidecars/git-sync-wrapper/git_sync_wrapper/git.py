"""
The environment in which the wrapper runs git, and queries of local repositories.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence

from git_sync_wrapper.flags.table import VARIABLES
from git_sync_wrapper.settings import PREFIX
from sidecar_runtime import proxies

ANSWER_SECONDS = 30.0


def ask(
    git: str,
    environ: Mapping[str, str],
    folder: str,
    *words: str,
    deadline_seconds: float = ANSWER_SECONDS,
) -> bytes | None:
    """
    Return git's output for the repository of a folder; None if the command fails.

    git fetches nothing, although in a clone with a filter most files of most commits are missing.
    """
    try:
        return subprocess.run(
            [git, *words],
            cwd=folder,
            env=surroundings(environ, [("safe.directory", "*")]) | {"GIT_NO_LAZY_FETCH": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=deadline_seconds,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None


def clean(environ: Mapping[str, str]) -> dict[str, str]:
    """
    Return the environment without variables for git-sync or the wrapper, which include passwords,
    and with our meaning of ``NO_PROXY``.
    """
    told = {
        name: value
        for name, value in environ.items()
        if name not in VARIABLES and not name.startswith((PREFIX, "GITSYNC_"))
    }
    return told | proxies.for_others(told)


def surroundings(environ: Mapping[str, str], configs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """
    Return an environment in which git reads only these configurations and never prompts.
    """
    told = clean(environ) | {
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "true",
        "GIT_TERMINAL_PROMPT": "0",
    }
    return told | configured({}, configs)


def configured(environ: Mapping[str, str], configs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """
    Return variables that pass these configurations to git. The environment's own configurations
    follow, so that they win.
    """
    if not configs:
        return {}
    count = environ.get("GIT_CONFIG_COUNT", "")
    theirs = int(count) if count.isdecimal() else 0
    told = {"GIT_CONFIG_COUNT": str(len(configs) + theirs)}
    for number in range(theirs):
        for name in ("GIT_CONFIG_KEY_", "GIT_CONFIG_VALUE_"):
            if (text := environ.get(f"{name}{number}")) is not None:
                told[f"{name}{number + len(configs)}"] = text
    for number, (key, value) in enumerate(configs):
        told |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return told
