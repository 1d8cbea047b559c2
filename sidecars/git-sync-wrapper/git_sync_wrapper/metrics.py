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
    missing. The statuses of a sync are ``error``, ``success`` for a change and for the first sync
    of a process, and ``noop``.
    """

    def __init__(self) -> None:
        by = ("status",)
        self._durations = Family("summary", "git_sync_duration_seconds", "Duration of a sync.", by)
        self._syncs = Family("counter", "git_sync_count_total", "Syncs by status.", by)
        self._fetches = Family("counter", "git_fetch_count_total", "Fetches of a new commit.")
        text, labels = "Hook runs by name and status.", ("name", "status")
        self._hooks = Family("counter", "git_sync_hook_run_count_total", text, labels)
        families = (self._durations, self._syncs, self._fetches, self._hooks)
        self.families = {family.name: family for family in families}
        self._fetches.labels()
        for metric in (self._syncs, self._durations):
            metric.labels("noop")

    def count(self, status: str, seconds: float = 0.0) -> None:
        """
        Count a sync, and the fetch of a success.
        """
        self._syncs.labels(status).inc()
        self._durations.labels(status).observe(seconds)
        if status == "success":
            self._fetches.labels().inc()

    def count_hook(self, name: str, status: str) -> None:
        """
        Count a run of a hook: ``success`` or ``error``.
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
