"""
The settings of git-sync-wrapper itself; git-sync's own are in :mod:`git_sync_wrapper.options`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass

from git_sync_wrapper.sources import Source, source, stage
from sidecar_runtime.errors import Problem
from sidecar_runtime.gate_settings import GateSettings, check_gate
from sidecar_runtime.parsers import absolute_path, allows, bind_address, choice, count, duration
from sidecar_runtime.settings import load, setting

PREFIX = "GIT_SYNC_WRAPPER_"

# What people type, and what it is called.
INSTEAD = {
    "GIT_SYNC_WRAPPER_INTERVAL": "GITSYNC_PERIOD",
    "GIT_SYNC_WRAPPER_PERIOD": "GITSYNC_PERIOD",
    "GIT_SYNC_WRAPPER_WAIT": "GITSYNC_PERIOD",
    "GIT_SYNC_WRAPPER_REPO": "GITSYNC_REPO",
    "GIT_SYNC_WRAPPER_REF": "GITSYNC_REF",
    "GIT_SYNC_WRAPPER_BRANCH": "GITSYNC_REF",
    "GIT_SYNC_WRAPPER_ROOT": "GITSYNC_ROOT",
    "GIT_SYNC_WRAPPER_LINK": "GITSYNC_LINK",
    "GIT_SYNC_WRAPPER_USERNAME": "GITSYNC_USERNAME",
    "GIT_SYNC_WRAPPER_PASSWORD": "GITSYNC_PASSWORD",
    "GIT_SYNC_WRAPPER_PASSWORD_FILE": "GITSYNC_PASSWORD_FILE",
    "GIT_SYNC_WRAPPER_ONE_TIME": "GITSYNC_ONE_TIME",
    "GIT_SYNC_WRAPPER_ONCE": "GIT_SYNC_WRAPPER_ONE_SHOT",
    "GIT_SYNC_WRAPPER_BINARY": "GIT_SYNC_WRAPPER_GIT_SYNC",
    "GIT_SYNC_WRAPPER_BIND": "GIT_SYNC_WRAPPER_HTTP_BIND",
    "GIT_SYNC_WRAPPER_LOGLEVEL": "GIT_SYNC_WRAPPER_LOG_LEVEL",
    "GIT_SYNC_WRAPPER_RETENTION": "GIT_SYNC_WRAPPER_RETAIN_FOR",
}


@allows("a program: a path, or a name on PATH")
def program(text: str) -> str:
    """
    Read a program: a path, or a name to be found on PATH.
    """
    found = shutil.which(text.strip())
    if found is None:
        raise ValueError("is no program that is in this image and can be run")
    return os.path.abspath(found)


@dataclass(frozen=True, kw_only=True)
class Settings(GateSettings):
    """
    The settings of the daemon.

    Args:
        interval_seconds: From git-sync's own period; no variable of ours sets it.
    """

    interval_seconds: float = 10.0
    jitter_seconds: float | None = setting(
        "JITTER",
        duration(),
        text="Each poll moves by up to this much, to spread a fleet. Unset: a tenth of git-sync's "
        "period.",
    )
    timeout_seconds: float = setting(
        "TIMEOUT",
        duration(at_least=1),
        default="10m",
        text="A cycle that takes longer is abandoned, counted as failed, and never publishes. At "
        "least git-sync's own --sync-timeout and two minutes.",
    )
    http_bind: tuple[str, int] = setting(
        "HTTP_BIND",
        bind_address,
        default=":9814",
        text="Where /healthz, /readyz, /metrics and the status page listen. git-sync's own port "
        "(GITSYNC_HTTP_BIND) is answered besides.",
    )
    mode: str = setting(
        "MODE",
        choice("protect", "passthrough"),
        default="protect",
        text="Whether commits are kept and published by the wrapper, or git-sync does as it always "
        "did.",
    )
    git_sync: str = setting(
        "GIT_SYNC",
        program,
        default="git-sync",
        text="The git-sync to run, version 4; the image has it at /git-sync.",
    )
    retain_count: int = setting(
        "RETAIN_COUNT",
        count,
        default="2",
        text="So many older commits stay, for those who still read them.",
    )
    retain_seconds: float = setting(
        "RETAIN_FOR",
        duration(at_most=365 * 86400.0),
        default="10m",
        text="A commit stays for at least this long after it was replaced, or for git-sync's "
        "--stale-worktree-timeout if that is longer.",
    )
    username_file: str | None = setting(
        "USERNAME_FILE",
        absolute_path,
        text="Where the user name is read for each login, beside --password-file.",
    )
    credentials: Source = setting(
        "CREDENTIALS",
        source,
        default="auto",
        text="Who logs in to the repository's server. auto: what git-sync's own flags say, and "
        "where they say nothing, the pod's AWS identity for CodeCommit.",
    )
    secret_stage: str = setting(
        "SECRET_STAGE",
        stage,
        default="AWSCURRENT",
        text="Which version of the secret in Secrets Manager is read.",
    )


def load_settings(environ: Mapping[str, str]) -> tuple[Settings, list[str]]:
    """
    Read the settings; return them and the names of unknown variables.

    Raises:
        SettingsError: One or more are wrong; all of them are named.
    """
    return load(Settings, PREFIX, environ, instead=INSTEAD, check=_check)


def _check(settings: Settings) -> list[Problem]:
    found = check_gate(settings, PREFIX)
    if settings.mode == "passthrough" and settings.gate != "off":
        found.append(
            Problem(f"{PREFIX}GATE", settings.gate, f"goes with {PREFIX}MODE=protect, only with it")
        )
    return found
