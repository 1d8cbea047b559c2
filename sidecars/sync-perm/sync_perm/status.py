"""
The state across cycles and threads, as shown by /readyz, /status and /metrics.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from sidecar_runtime.health import Names, Readiness
from sidecar_runtime.logs import get_logger
from sync_perm.compare import KINDS, Difference, Failure
from sync_perm.metrics import PermMetrics
from sync_perm.passes import CLI_CAUSES
from sync_perm.reasons import OF_DAGS
from sync_perm.roles import RoleFile

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
        kinds = Counter(item.kind for item in items)
        reasons = Counter(one.reason for one in failing.values())
        for kind in KINDS:
            self.metrics.differences(kind).set(kinds[kind])
        for reason in OF_DAGS:
            self.metrics.failing(reason).set(reasons[reason])
        self.metrics.pending.set(len(pending))
        for dag_id, one in failing.items():
            if self._named.get(dag_id) != one:
                log.warning("dag_failed", dag=dag_id, reason=one.reason, error=one.text)
        self._named = failing
        problems = [] if is_synced else ["Airflow has not synced its roles yet"]
        if missing := len(items) - kinds["dag_revoke"]:
            problems.append(f"{missing:,} of {wanted:,} rows are missing")
        if kinds["dag_revoke"]:
            problems.append(f"{kinds['dag_revoke']:,} grants are too many")
        self.readiness = Readiness(not problems, revision, problem="; ".join(problems))
        self.confirm(revision)
        self._detail(
            differences=dict(kinds),
            pending_dags=pending[:NAMED_DAGS],
            pending_roles_file=[str(i) for i in sorted(items) if i.is_of_file][:NAMED_DAGS],
            failing_dags=Names(
                (dag_id, f"{one.reason}: {one.text}")
                for dag_id, one in sorted(failing.items())[:NAMED_DAGS]
            ),
        )

    def show_file(self, file: RoleFile, notes: tuple[str, ...]) -> None:
        """
        Show the state of the roles file, and its selections without effect.
        """
        self.metrics.mistakes.set(len(file.mistakes))
        self._file_shortfall = str(file.problem or "")
        if file.problem and file.problem.reason != "role_name_unsupported":
            self._file_shortfall = f"the roles file is ignored: {file.problem}"
        self._detail(roles_file=file.path, roles_file_revision=file.revision)
        self._detail(roles_file_notes=list(notes[:NAMED_DAGS]))
        self.confirm(self.readiness.revision)

    def confirm(self, revision: str) -> None:
        """
        Record that what was found correct is still so.
        """
        if not self.readiness.ready:
            return
        shortfalls = [self._file_shortfall] if self._file_shortfall else []
        if named := sorted(self._named.items()):
            dags = [f"{dag_id} ({one.reason})" for dag_id, one in named[:TOLD_DAGS]]
            dags += [f"and {len(named) - TOLD_DAGS:,} more"] if len(named) > TOLD_DAGS else []
            shortfalls.append(f"DAGs that cannot be synced: {', '.join(dags)}")
        text = "; ".join(shortfalls)
        self.readiness = Readiness(True, revision, published_at=time.time(), shortfall=text)
        self.metrics.known_good.set_to_current_time()

    def show_mode(self, cli_because: str | None) -> None:
        """
        Show why the full ``airflow sync-perm`` runs; None if our script does.
        """
        for cause in CLI_CAUSES:
            self.metrics.cli(cause).set(cause == cli_because)
        self._detail(mode="cli" if cli_because else "targeted", cli_because=cli_because or "")

    def show_pass(self, facts: Mapping[str, Any], *, written: int) -> None:
        """
        Show the result of the last pass, and count the rows that it has written.
        """
        self.metrics.count_pass(facts["reason"], facts["result"])
        self.metrics.pass_cpu.set(facts["cpu_seconds"])
        self.metrics.pass_duration.set(facts["duration_seconds"])
        self.metrics.changed.inc(written)
        self._detail(last_pass=facts)

    def _detail(self, **details: object) -> None:
        shown = {**self.details, **details}
        self.details = {k: v for k, v in shown.items() if v not in ({}, [], "")}
