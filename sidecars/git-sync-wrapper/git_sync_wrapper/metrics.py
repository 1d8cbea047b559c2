"""
The metrics of git-sync-wrapper, and git-sync's metrics under their own names.
"""

from __future__ import annotations

from sidecar_runtime.gate.gate import GateMetrics
from sidecar_runtime.metrics import Family, Metrics


class GitSyncMetrics:
    """
    The metrics that git-sync itself would export, without our labels: its dashboards still work.

    Its counters of askpass and GitHub calls, which have no sample before the first call, are
    missing.
    """

    def __init__(self) -> None:
        self._durations = Family(
            "summary", "git_sync_duration_seconds", "Duration of a sync.", ("status",)
        )
        self._syncs = Family(
            "counter",
            "git_sync_count_total",
            "Syncs by status: success, error or noop.",
            ("status",),
        )
        self._fetches = Family("counter", "git_fetch_count_total", "Fetches of a new commit.")
        self._hooks = Family(
            "counter",
            "git_sync_hook_run_count_total",
            "Hook runs by name and status: success or error.",
            ("name", "status"),
        )
        families = (self._durations, self._syncs, self._fetches, self._hooks)
        self.families = {family.name: family for family in families}
        self._fetches.labels()
        for metric in (self._syncs, self._durations):
            metric.labels("noop")

    def count_sync(self, status: str, seconds: float) -> None:
        """
        Count a sync: ``error``, or ``success`` for a change and for the first sync of a process.
        """
        self._syncs.labels(status).inc()
        self._durations.labels(status).observe(seconds)

    def count_noop(self) -> None:
        """
        Count a sync that found no new commit.
        """
        self.count_sync("noop", 0.0)

    def count_fetch(self) -> None:
        """
        Count a fetch of a new commit.
        """
        self._fetches.labels().inc()

    def count_hook(self, name: str, status: str) -> None:
        """
        Count a run of a hook.
        """
        self._hooks.labels(name, status).inc()


class WrapperMetrics(Metrics):
    """
    The metrics of every sidecar, of the gate, of git-sync and of the wrapper itself.
    """

    def __init__(self, version: str, revision: str) -> None:
        super().__init__("git-sync-wrapper", version, revision)
        self.publishes_revisions()
        self.gate = GateMetrics(self)
        self.git_sync = GitSyncMetrics()
        self.families |= self.git_sync.families
        self.polls = self.counter_by(
            "result",
            "git_sync_wrapper_polls_total",
            "Polls of the remote by result: same, new or error.",
        )
        self.runs = self.counter_by(
            "result", "git_sync_wrapper_runs_total", "git-sync runs by result: success or error."
        )
        self.healed = self.counter(
            "git_sync_wrapper_healed_total",
            "Obstacles removed from git-sync's repository.",
        )
