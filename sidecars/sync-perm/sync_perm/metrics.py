"""
The metrics of sync-perm.
"""

from __future__ import annotations

from sidecar_runtime.metrics import Metrics
from sync_perm.compare import KINDS
from sync_perm.passes import CLI_CAUSES
from sync_perm.reasons import OF_DAGS

REASONS = ("asked", "start", "roles", "dags", "file")
"""SIGHUP asked for it; this process has not synced roles; roles moved; only DAGs; only the file."""


class PermMetrics(Metrics):
    """
    The common metrics and those of sync-perm.
    """

    def __init__(self, version: str, revision: str) -> None:
        super().__init__("sync-perm", version, revision)
        self.known_good = self.gauge(
            "sync_perm_known_good_timestamp_seconds",
            "Unix time when the permissions were last found to be correct. Alert on its age.",
        )
        self.differences = self.gauge_by(
            "kind", "sync_perm_differences", "Rows to change, by kind."
        )
        self.pending = self.gauge("sync_perm_pending_dags", "DAGs that the next pass changes.")
        self.failing = self.gauge_by(
            "reason", "sync_perm_failing_dags", "DAGs that cannot be synced."
        )
        self.mistakes = self.gauge(
            "sync_perm_roles_file_mistakes", "Mistakes in the roles file, which is ignored then."
        )
        self.changed = self.counter("sync_perm_changed_entries_total", "Rows that passes changed.")
        self.cli = self.gauge_by("reason", "sync_perm_cli", "1 while the whole command runs.")
        self._passes = self.family(
            "counter", "sync_perm_passes_total", "Passes, by reason and result.", "reason", "result"
        )
        self.pass_cpu = self.gauge("sync_perm_last_pass_cpu_seconds", "CPU of the last pass.")
        self.pass_duration = self.gauge(
            "sync_perm_last_pass_duration_seconds", "Wall time of the last pass."
        )
        self.lock_waits = self.counter(
            "sync_perm_lock_waits_total", "Times that another sidecar held the lock for a pass."
        )
        for cause in CLI_CAUSES:
            self.cli(cause).set(0)
        for kind in KINDS:
            self.differences(kind).set(0)
        for failure in OF_DAGS:
            self.failing(failure).set(0)
        for reason in REASONS:
            for result in ("success", "error"):
                self.count_pass(reason, result, 0)

    def count_pass(self, reason: str, result: str, number: int = 1) -> None:
        """
        Count passes; 0 creates the sample.
        """
        self._passes.labels(reason, result).inc(number)
