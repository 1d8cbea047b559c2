"""
What /readyz, /status and /metrics show of the comparison, across cycles and threads.
"""

import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from sidecar_runtime.errors import SidecarError
from sidecar_runtime.health import Names, Readiness
from sidecar_runtime.logs import get_logger
from sidecar_runtime.metrics import Metrics
from sync_perm.compare import KINDS, Difference, Failure
from sync_perm.reasons import OF_DAGS, failure
from sync_perm.roles_file import RoleFile

NAMED = 50
# In a sentence.
TOLD_DAGS = 5

log = get_logger("status")


class PermMetrics(Metrics):
    """
    The common metrics and those of sync-perm.
    """

    def __init__(self, *, is_read: bool = True) -> None:
        super().__init__("sync-perm", is_read=is_read)
        self.known_good = self.gauge(
            "sync_perm_known_good_timestamp_seconds",
            "Unix time when the permissions were last found to be correct. Alert on its age.",
        )
        self.differences = self.gauge(
            "sync_perm_differences", "Rows to change, by kind.", "kind"
        )
        self.pending = self.gauge(
            "sync_perm_pending_dags", "DAGs that the next pass changes."
        )
        self.failing = self.gauge(
            "sync_perm_failing_dags", "DAGs that cannot be synced.", "reason"
        )
        self.unasked = self.add(
            "gauge",
            "sync_perm_unasked_grants",
            "What nobody asks for any more: see `sync-perm diff`. A roles file with mistakes "
            "leaves it. Absent where no DAG is read, and until a valid roles file was compared.",
        )
        self.mistakes = self.gauge(
            "sync_perm_roles_file_mistakes",
            "Mistakes in the roles file, which is ignored then.",
        )
        self.changed = self.counter(
            "sync_perm_changed_entries_total", "Rows that passes changed."
        )
        self.passes = self.add(
            "counter",
            "sync_perm_passes_total",
            "Passes, by reason and result.",
            "reason",
            "result",
        )


class Status:
    """
    The current facts. Each is replaced as a whole, so threads need no lock.
    """

    def __init__(self, metrics: PermMetrics, **details: object) -> None:
        self.metrics = metrics
        self._named: Mapping[str, Failure] = {}
        self._is_good = False
        self.readiness = Readiness()
        self.details: dict[str, object] = details

    def show(
        self,
        difference: Difference,
        revision: str,
        *,
        was_synced: bool,
        is_synced: bool,
        file: RoleFile | None,
    ) -> None:
        """
        Show the result of a comparison.

        Args:
            difference: The rows that a pass would fix, and the DAGs that cannot be
                synced.
            was_synced: Whether this process has let Airflow sync its roles.
            is_synced: Whether they are unchanged since.
        """
        items, failing, wanted = difference[:3]
        pending = sorted({item.dag_id for item in items if item.dag_id})
        kinds = Counter(item.kind for item in items)
        reasons = Counter(one.reason for one in failing.values())
        for kind in KINDS:
            self.metrics.differences(kind).set(kinds[kind])
        for reason in OF_DAGS:
            self.metrics.failing(reason).set(reasons[reason])
        self.metrics.pending.set(len(pending))
        if difference.unasked is not None:
            self.metrics.unasked.labels(self.metrics.sidecar).set(
                len(difference.unasked)
            )
        for dag_id, one in failing.items():
            if self._named.get(dag_id) != one:
                log.warning("dag_failed", dag=dag_id, reason=one.reason, error=one.text)
        self._named = failing
        problems = [] if was_synced else ["Airflow has not synced its roles yet"]
        missing = len(items) - kinds["dag_revoke"]
        if missing:
            problems.append(f"{missing:,} of {wanted:,} rows are missing")
        if kinds["dag_revoke"]:
            problems.append(f"{kinds['dag_revoke']:,} grants are too many")
        named = sorted(failing.items())
        self.tell(
            differences=dict(kinds),
            pending_dags=pending[:NAMED],
            failing_dags=Names(
                (dag_id, f"{one.reason}: {one.text}") for dag_id, one in named[:NAMED]
            ),
        )
        shortfalls = []
        if was_synced and not is_synced:
            shortfalls.append(
                "roles or grants changed after the last pass: Airflow has yet to judge them"
            )
        if file:
            self.metrics.mistakes.set(len(file.mistakes))
            self.tell(
                roles_file=file.path, roles_file_notes=list(difference.notes[:NAMED])
            )
            if file.problem:
                shortfalls.append(f"the roles file is ignored: {file.problem}")
        if failing:
            dags = [f"{dag_id} ({one.reason})" for dag_id, one in named[:TOLD_DAGS]]
            shortfalls.append(f"{len(named)} cannot be synced: {', '.join(dags)}")
        problem: SidecarError | None = None
        if problems:
            reason = "permissions_differ" if items else "roles_unsynced"
            problem = failure(reason, "; ".join(problems))
        self.readiness = Readiness(
            revision=revision,
            published_at=self.readiness.published_at,
            problem=problem,
            shortfall="" if problem else "; ".join(shortfalls),
        )
        self._is_good = is_synced and not problem
        self.confirm()

    def confirm(self) -> None:
        """
        Record that what was found correct is still so.
        """
        if self._is_good:
            self.readiness = self.readiness._replace(published_at=time.time())
            self.metrics.known_good.set_to_current_time()

    def show_pass(self, written: int, **facts: Any) -> None:
        """
        Show the result of the last pass, and count the rows that it has written.
        """
        self.metrics.passes.labels(
            self.metrics.sidecar, facts["reason"], facts["result"]
        ).inc()
        self.metrics.changed.inc(written)
        if written:  # the cycle may wait for its next portion, or fail
            self.metrics.last_publish.set_to_current_time()
        self.tell(last_pass=facts)
        log.info("pass_finished", **facts)

    def tell(self, **details: object) -> None:
        """
        Replace details.
        """
        self.details = {**self.details, **details}
