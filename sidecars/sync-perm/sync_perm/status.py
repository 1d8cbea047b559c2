"""
The state across cycles and threads, as shown by /readyz, /status and /metrics.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from heapq import nsmallest

from sidecar_runtime.health import Readiness
from sidecar_runtime.logs import get_logger
from sidecar_runtime.sidecar import Names
from sync_perm.compare import KINDS, Difference, Failure
from sync_perm.metrics import PermMetrics
from sync_perm.passes import CLI_CAUSES
from sync_perm.reasons import OF_DAGS
from sync_perm.roles import RoleFile, Wanted

NAMED_DAGS = 50
# In a sentence.
TOLD_DAGS = 5

log = get_logger("status")


class Status:
    """
    The current facts. Each is replaced as a whole, so threads need no lock.
    """

    def __init__(self, metrics: PermMetrics, **details: object) -> None:
        self.metrics = metrics
        self._named: Mapping[str, Failure] = {}
        self._file_shortfall = ""
        self.readiness = Readiness(False, problem="the permissions have not been compared yet")
        self.details: dict[str, object] = details

    def show(self, difference: Difference, revision: str, *, is_synced: bool) -> None:
        """
        Show the result of a comparison.

        Args:
            difference: The rows that a pass would fix, and the DAGs that cannot be synced.
            is_synced: Whether this process has let Airflow sync its roles, and they are unchanged.
        """
        items, failing, wanted = difference
        pending = sorted({item.dag_id for item in items if item.dag_id})
        reasons = Counter(one.reason for one in failing.values())
        for kind in KINDS:
            self.metrics.differences(kind).set(difference.kinds[kind])
        for reason in OF_DAGS:
            self.metrics.failing(reason).set(reasons[reason])
        self.metrics.pending.set(len(pending))
        for dag_id, one in failing.items():
            if self._named.get(dag_id) != one:
                log.warning("dag_failed", dag=dag_id, reason=one.reason, error=one.text)
        self._named = failing
        problems = [] if is_synced else ["Airflow has not synced its roles yet"]
        if items:
            count = sum(item.kind != "dag_revoke" for item in items)
            problems.append(f"{count:,} of {wanted:,} rows of DAGs are missing")
            if more := len(items) - count:
                problems.append(f"{more:,} rows are too many")
        if problems:
            self.readiness = Readiness(False, revision, problem="; ".join(problems))
        else:
            self.readiness = Readiness(True, revision)
            self.confirm(revision)
        self._detail(
            differences=dict(difference.kinds),
            pending_dags=pending[:NAMED_DAGS],
            pending_roles_file=[
                f"{item.row[0]}: {' on '.join(item.row[1:]) or 'the role itself'}"
                for item in nsmallest(NAMED_DAGS, (one for one in items if one.is_of_file))
            ],
            failing_dags=Names(
                (dag_id, f"{one.reason}: {one.text}")
                for dag_id, one in sorted(failing.items())[:NAMED_DAGS]
            ),
        )

    def show_file(self, file: RoleFile, wanted: Wanted) -> None:
        """
        Show the state of the roles file.
        """
        self.metrics.mistakes.set(len(file.mistakes))
        self._file_shortfall = str(file.problem or "")
        if file.problem and file.problem.reason != "role_name_unsupported":
            self._file_shortfall = f"the roles file is ignored: {file.problem}"
        self._detail(
            roles_file=file.path,
            roles_file_revision=file.revision,
            roles_file_overruled=list(wanted.overruled[:NAMED_DAGS]),
            roles_file_idle=[
                f"{one.where.key}: {one.by} {one.value}" for one in wanted.idle[:NAMED_DAGS]
            ],
        )

    def confirm(self, revision: str) -> None:
        """
        Record that what was found correct is still so.
        """
        if not self.readiness.ready:
            return
        shortfall = "; ".join(filter(None, (self._file_shortfall, self._dag_shortfall)))
        self.readiness = Readiness(True, revision, published_at=time.time(), shortfall=shortfall)
        self.metrics.known_good.set_to_current_time()

    @property
    def _dag_shortfall(self) -> str:
        if not self._named:
            return ""
        named = ", ".join(
            f"{d} ({one.reason})" for d, one in sorted(self._named.items())[:TOLD_DAGS]
        )
        more = len(self._named) - TOLD_DAGS
        return f"DAGs that cannot be synced: {named}{f' and {more:,} more' if more > 0 else ''}"

    def show_mode(self, cli_because: str | None) -> None:
        """
        Show why the full ``airflow sync-perm`` runs; None if our script does.
        """
        for cause in CLI_CAUSES:
            self.metrics.cli(cause).set(cause == cli_because)
        self._detail(mode="cli" if cli_because else "targeted", cli_because=cli_because or "")

    def show_pass(
        self, reason: str, result: str, duration_seconds: float, cpu_seconds: float, **facts: object
    ) -> None:
        """
        Show the result of the last pass.
        """
        self.metrics.count_pass(reason, result)
        self.metrics.pass_cpu.set(cpu_seconds)
        self.metrics.pass_duration.set(duration_seconds)
        seconds = {"duration_seconds": duration_seconds, "cpu_seconds": cpu_seconds}
        self._detail(last_pass={"reason": reason, "result": result, **seconds, **facts})

    def _detail(self, **details: object) -> None:
        shown = {**self.details, **details}
        self.details = {k: v for k, v in shown.items() if v not in ({}, [], "")}
