"""
The settings of git-sync-wrapper; those of git-sync are in :mod:`git_sync_wrapper.flags.options`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass

from git_sync_wrapper.credential_source import Source, source, stage
from sidecar_runtime.errors import Problem
from sidecar_runtime.gate.settings import GateSettings, check_gate
from sidecar_runtime.parsers import (
    YEAR_SECONDS,
    absolute_path,
    allows,
    boolean,
    byte_size,
    choice,
    count,
    duration,
)
from sidecar_runtime.settings import inherited, load, setting, slips

PREFIX = "GIT_SYNC_WRAPPER_"

INSTEAD = slips(
    PREFIX,
    {
        "GITSYNC_PERIOD": "INTERVAL PERIOD WAIT",
        "GITSYNC_REPO": "REPO",
        "GITSYNC_REF": "REF BRANCH",
        "GITSYNC_ROOT": "ROOT",
        "GITSYNC_LINK": "LINK",
        "GITSYNC_USERNAME": "USERNAME",
        "GITSYNC_PASSWORD": "PASSWORD",
        "GITSYNC_PASSWORD_FILE": "PASSWORD_FILE",
        "GITSYNC_ONE_TIME": "ONE_TIME",
        "GIT_SYNC_WRAPPER_GIT_SYNC": "BINARY",
        "GIT_SYNC_WRAPPER_RETAIN_FOR": "RETENTION",
    },
)


@allows("a program: a path, or a name on PATH")
def program(text: str) -> str:
    """
    Read a program: a path, or a name to be found on PATH.
    """
    found = shutil.which(text.strip())
    if found is None:
        raise ValueError("is not a program that this image has and can run")
    return os.path.abspath(found)


@dataclass(frozen=True, kw_only=True)
class Settings(GateSettings):
    """
    The settings of the daemon.

    Args:
        interval_seconds: From git-sync's own period; no variable of ours sets it.
    """

    interval_seconds: float = 10.0
    jitter_seconds: float | None = inherited(
        "jitter_seconds",
        text="Shift each poll by up to this much, at random. Unset: a tenth of git-sync's period.",
    )
    timeout_seconds: float = inherited(
        "timeout_seconds",
        text="A cycle that takes longer is abandoned, counted as failed, and never publishes. At "
        "least git-sync's own --sync-timeout and two minutes.",
    )
    http_bind: tuple[str, int] = inherited(
        "http_bind",
        default=":9814",
        text="Where /healthz, /readyz, /metrics and the status page listen. git-sync's own port "
        "(GITSYNC_HTTP_BIND) is served as well.",
    )
    mode: str = setting(
        "MODE",
        choice("protect", "passthrough"),
        default="protect",
        text="Whether commits are kept and published by the wrapper, or git-sync runs unchanged.",
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
        text="How many older commits to keep for readers that still have them open.",
    )
    retain_seconds: float = setting(
        "RETAIN_FOR",
        duration(at_most=YEAR_SECONDS),
        default="10m",
        text="A commit stays for at least this long after it was replaced, or for git-sync's "
        "--stale-worktree-timeout if that is longer.",
    )
    retain_bytes: int | None = setting(
        "RETAIN_BYTES",
        byte_size,
        text="What older commits may take on the volume, beyond what they share with the shown "
        "one: above that the oldest goes, though its time has not come. Unset: no limit.",
    )
    keep_asked: int = setting(
        "KEEP_ASKED",
        count,
        default="20",
        text="How many older commits to keep that a pod has asked for (DAG versions of Airflow 3), "
        "beside those of RETAIN_COUNT. 0: nobody may ask.",
    )
    keep_asked_bytes: int = setting(
        "KEEP_ASKED_BYTES",
        byte_size,
        default="256Mi",
        text="What they may take on the volume, beyond what they share with the shown commit; the "
        "ones seen in use last stay.",
    )
    fsync: bool = setting(
        "FSYNC",
        boolean,
        default="true",
        text="Flush each new file and its folder to disk before the link shows it: a commit "
        "outlives a loss of power. If false, what such a loss spoilt is noticed and restored, and "
        "until then it is not ready: enough for an emptyDir, which its node loses with its power.",
    )
    username_file: str | None = setting(
        "USERNAME_FILE",
        absolute_path,
        text="The file to read the user name from at each login, with --password-file.",
    )
    credentials: Source = setting(
        "CREDENTIALS",
        source,
        default="auto",
        text="Who logs in to the repository's server. auto: as git-sync's own flags say, or "
        "where they say nothing, the pod's AWS identity for CodeCommit.",
    )
    secret_stage: str = setting(
        "SECRET_STAGE",
        stage,
        default="AWSCURRENT",
        text="Which version of the secret in Secrets Manager is read.",
    )

    @property
    def answers(self) -> bool:
        """
        Whether consumers may ask for older commits.
        """
        return bool(self.keep_asked) and not (self.one_shot or self.dry_run)


def load_settings(environ: Mapping[str, str]) -> tuple[Settings, dict[str, str]]:
    """
    Read the settings; return them, and the variables that nobody reads, as :func:`load` does.

    Raises:
        SettingsError: One or more are wrong; all of them are named.
    """
    return load(Settings, PREFIX, environ, instead=INSTEAD, check=_check)


def _check(settings: Settings) -> list[Problem]:
    found = check_gate(settings, PREFIX)
    if settings.mode == "passthrough" and settings.gate != "off":
        found.append(Problem(f"{PREFIX}GATE", settings.gate, f"needs {PREFIX}MODE=protect"))
    return found
