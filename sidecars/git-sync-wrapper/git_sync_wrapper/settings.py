"""
The settings of git-sync-wrapper; :mod:`git_sync_wrapper.options` has git-sync's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sidecar_runtime.gate.gate import GateSettings, check_gate
from sidecar_runtime.parsers import (
    YEAR_SECONDS,
    absolute_path,
    boolean,
    choice,
    count,
    duration,
)
from sidecar_runtime.settings import inherited, load, setting

PREFIX = "GIT_SYNC_WRAPPER_"

_NO_REQUESTS = "no longer exists: pods cannot request commits; remove it"
# What earlier versions had; see `load`.
GONE = {
    "DRY_RUN": "no longer exists, and the wrapper writes: remove it to let it write; "
    "`git-sync-wrapper check` writes nothing",
    "KEEP_REQUESTED": _NO_REQUESTS,
    "KEEP_REQUESTED_BYTES": _NO_REQUESTS,
    "MODE": "no longer exists: the wrapper always publishes by itself; remove it, or "
    "run the image of git-sync",
    "RETAIN_BYTES": "no longer exists: the oldest commits go when a new one needs the "
    "room; remove it, and limit them with GIT_SYNC_WRAPPER_RETAIN_COUNT and "
    "GIT_SYNC_WRAPPER_RETAIN_FOR",
    "SECRET_STAGE": "no longer exists: secrets are files; remove it",
}


@dataclass(frozen=True, kw_only=True)
class Settings(GateSettings):
    """
    The settings of the daemon.

    Args:
        interval_seconds: git-sync's own period; no variable with our prefix sets it.
    """

    interval_seconds: float = 10.0
    timeout_seconds: float = inherited(
        "timeout_seconds",
        text="Abandon a cycle that takes longer: it counts as failed and never publishes. At least "
        "git-sync's --sync-timeout plus two minutes.",
    )
    http_bind: tuple[str, int] = inherited(
        "http_bind",
        default=":9814",
        text="The address that serves /healthz, /readyz, /metrics and the status page.",
    )
    git_sync: str = setting(
        "GIT_SYNC",
        str.strip,
        default="git-sync",
        allowed="a program: a path, or a name on PATH",
        text="The git-sync program to run, version 4. The image contains it at /git-sync.",
    )
    retain_count: int = setting(
        "RETAIN_COUNT",
        count,
        default="2",
        text="How many older commits to keep for readers that still have them open.",
    )
    retain_seconds: float = setting(
        "RETAIN_FOR",
        duration(at_most=YEAR_SECONDS),
        default="10m",
        text="Keep a replaced commit for at least this long.",
    )
    fsync: bool = setting(
        "FSYNC",
        boolean,
        default="true",
        text="Flush new files to disk before the link points to them. If false, files that a power "
        "loss damaged are detected and restored, which is enough for an emptyDir.",
    )
    username_file: str | None = setting(
        "USERNAME_FILE",
        absolute_path,
        text="A file with the user name, read at each login. Replaces GITSYNC_USERNAME.",
    )
    credentials: str = setting(
        "CREDENTIALS",
        choice("auto", "codecommit"),
        default="auto",
        text="auto: log in with git-sync's own flags or, if they set no login, to CodeCommit with "
        "the pod's AWS identity. codecommit: with that identity under any host name.",
    )


def load_settings(environ: Mapping[str, str]) -> tuple[Settings, list[str]]:
    """
    Return the settings, and the variables with our prefix that no setting reads, as
    :func:`load`.

    Raises:
        SettingsError: One or more are invalid; it lists all of them.
    """
    return load(Settings, PREFIX, environ, gone=GONE, check=check_gate)
