"""
The sidecar that the loop runs: the parts of a cycle, and what outlives its thread.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from git_sync_wrapper import engine
from git_sync_wrapper.engine import Engine
from git_sync_wrapper.git import Git
from git_sync_wrapper.hooks import Hooks
from git_sync_wrapper.logins import Logins
from git_sync_wrapper.metrics import WrapperMetrics
from git_sync_wrapper.options import Options
from git_sync_wrapper.settings import Settings
from sidecar_runtime.gate.gate import Gate, make_gate
from sidecar_runtime.health import Readiness, Session
from sidecar_runtime.volume.files import TargetLock

NOTHING = Readiness(False, problem="nothing is published yet")


@dataclass(slots=True)
class Past:
    """
    What outlives a cycle and its thread.

    Args:
        readiness: The answer of /readyz: written by the cycle, read by the endpoint, which never
            waits for the volume.
        details: The facts of the status page.
        failures: Consecutive failures, as git-sync counts them.
        has_synced: Whether a cycle of this process has found the newest commit published.
        waits_for: Who has the lock of the volume, as last logged; empty if this process has it.
    """

    readiness: Readiness = NOTHING
    details: dict[str, object] = field(default_factory=dict)
    failures: int = 0
    has_synced: bool = False
    waits_for: str = ""
    lock: TargetLock = field(default_factory=TargetLock)


class Parts(NamedTuple):
    """
    What a cycle works with.
    """

    settings: Settings
    options: Options
    git: Git
    engine: Engine
    logins: Logins
    gate: Gate | None
    hooks: Hooks
    metrics: WrapperMetrics
    past: Past


def join(
    settings: Settings, options: Options, environ: Mapping[str, str], metrics: WrapperMetrics
) -> Parts:
    """
    Return the parts for these settings; their logins must be closed.

    Raises:
        SidecarError: Settings contradict each other, or the private folder cannot be created.
    """
    logins = Logins(settings, options)
    git = Git(options, environ, logins.folder)
    root = os.path.join(options.root, engine.ROOT)
    return Parts(
        settings,
        options,
        git,
        Engine(settings.git_sync, options, environ, git, root, metrics.healed.inc),
        logins,
        make_gate(settings, metrics.gate, pin="GITSYNC_REF" if options.is_pinned else ""),
        Hooks(options, environ, metrics.git_sync.count_hook),
        metrics,
        Past(),
    )


class GitSyncWrapper:
    """
    The sidecar.

    Args:
        begin: Starts a session.
    """

    def __init__(self, parts: Parts, begin: Callable[[], Session]) -> None:
        self._parts = parts
        self.begin = begin

    def readiness(self) -> Readiness:
        readiness = self._parts.past.readiness
        said = readiness.shortfall, self._parts.hooks.problem
        return readiness._replace(shortfall="; ".join(filter(None, said)))

    def details(self) -> dict[str, object]:
        options = self._parts.options
        repo = options.hide(options.repo)
        return {"repository": repo, "ref": options.ref, **self._parts.past.details}

    def watch(self, wake: Callable[[], None]) -> None:
        """
        Let the signal of ``--sync-on-signal`` trigger a cycle; the loop handles SIGHUP.
        """
        asked = self._parts.options.sync_on_signal
        if asked is not None and asked != signal.SIGHUP:
            signal.signal(asked, lambda *_: wake())
