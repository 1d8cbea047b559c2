"""
The sidecar that the loop runs: the parts of a cycle, what outlives its thread, and the
metrics, git-sync's own among them.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from git_sync_wrapper.engine import Engine
from git_sync_wrapper.git import Git
from git_sync_wrapper.hooks import Hooks
from git_sync_wrapper.logins import Logins
from git_sync_wrapper.options import Options
from git_sync_wrapper.settings import Settings
from sidecar_runtime.gate.gate import Gate, GateMetrics, make_gate
from sidecar_runtime.health import Readiness, Session
from sidecar_runtime.metrics import Metrics, Registry
from sidecar_runtime.volume.files import TargetLock


class GitSyncMetrics(Registry):
    """
    The metrics that git-sync itself would export, without our labels: its dashboards
    still work.

    Its counters of askpass and GitHub calls, which have no sample before the first
    call, are missing. The statuses of a sync are ``error``, ``success`` for a change
    and for the first sync of a process, and ``noop``.
    """

    def __init__(self, *, is_read: bool) -> None:
        super().__init__(is_read=is_read)
        self._durations = self.add(
            "summary", "git_sync_duration_seconds", "Duration of a sync.", "status"
        )
        self._syncs = self.add(
            "counter", "git_sync_count_total", "Syncs by status.", "status"
        )
        self._fetches = self.add(
            "counter", "git_fetch_count_total", "Fetches of a new commit."
        )
        self.hooks = self.add(
            "counter",
            "git_sync_hook_run_count_total",
            "Hook runs by name and status.",
            "name",
            "status",
        )

    def count(self, status: str, started: float) -> None:
        """
        Count a sync that ends now, and the fetch of a success.

        Args:
            started: In monotonic seconds.
        """
        self._syncs.labels(status).inc()
        self._durations.labels(status).observe(time.monotonic() - started)
        if status == "success":
            self._fetches.inc()


class WrapperMetrics(Metrics):
    """
    The metrics of every sidecar, of the gate, of git-sync and of the wrapper itself.
    """

    def __init__(self, *, is_read: bool = True) -> None:
        super().__init__("git-sync-wrapper", is_read=is_read)
        self.publishes_revisions()
        self.gate = GateMetrics(self)
        self.git_sync = GitSyncMetrics(is_read=is_read)
        self.adopt(self.git_sync)
        self.polls = self.counter(
            "git_sync_wrapper_polls_total",
            "Polls of the remote by result: same, new or error.",
            "result",
        )
        self.runs = self.counter(
            "git_sync_wrapper_runs_total",
            "git-sync runs by result: success or error.",
            "result",
        )


@dataclass
class Past:
    """
    What outlives a cycle and its thread.

    Args:
        readiness: The answer of /readyz: written by the cycle, read by the endpoint,
            which never waits for the volume.
        details: The facts of the status page.
        failures: Consecutive failures, as git-sync counts them.
        announced: The commit for which this process has started the hooks last; empty
            before it has found the newest one published.
    """

    readiness: Readiness = field(default_factory=Readiness)
    details: dict[str, object] = field(default_factory=dict)
    failures: int = 0
    announced: str = ""
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


def join(settings: Settings, options: Options, metrics: WrapperMetrics) -> Parts:
    """
    Return the parts for these settings; their logins must be closed.

    Raises:
        SidecarError: Settings contradict each other, or the private folder cannot be
            created.
    """
    logins = Logins(settings, options)
    git = Git(options, logins)
    return Parts(
        settings,
        options,
        git,
        Engine(settings.git_sync, options, git),
        logins,
        make_gate(settings, metrics.gate),
        Hooks(options, metrics.git_sync.hooks),
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
        return self._parts.past.readiness

    def details(self) -> dict[str, object]:
        return {
            "repository": self._parts.options.repo,
            "ref": self._parts.options.ref,
            **self._parts.past.details,
        }

    def watch(self, wake: Callable[[], None]) -> None:
        """
        Let the signal of ``--sync-on-signal`` trigger a cycle; the loop handles SIGHUP.
        """
        asked = self._parts.options.sync_on_signal
        if asked is not None and asked != signal.SIGHUP:
            signal.signal(asked, lambda *_: wake())
