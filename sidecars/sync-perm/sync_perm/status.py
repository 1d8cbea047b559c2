"""
The state across cycles and threads, as shown by /readyz, /status and /metrics.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from heapq import nsmallest

from sidecar_runtime.errors import SidecarError
from sidecar_runtime.health import Readiness
from sidecar_runtime.logs import get_logger
from sidecar_runtime.sidecar import Names
from sync_perm.difference import FAILURE_REASONS, KINDS, Failure, Item
from sync_perm.metrics import PermMetrics
from sync_perm.plan import CLI_CAUSES
from sync_perm.role_file.file import RoleFile
from sync_perm.role_file.wanted import Wanted

NAMED_DAGS = 50

log = get_logger("status")


class Status:
    """
    The current facts. Each is replaced as a whole, so threads need no lock.
    """

    def __init__(self, metrics: PermMetrics, **details: object) -> None:
        self._metrics = metrics
        self._details = details
        self._named: dict[str, Failure] = {}
        # The problems of the definition, of the roles file, and of the DAGs.
        self._unread_shortfall = self._file_shortfall = self._dag_shortfall = ""
        self.readiness = Readiness(False, problem="the permissions have not been compared yet")
        self.details: dict[str, object] = details

    def show_differences(
        self,
        items: frozenset[Item],
        failing: Mapping[str, Failure],
        revision: str,
        *,
        is_defined: bool,
    ) -> None:
        """
        Show the result of a comparison.

        Args:
            items: The rows that a pass would fix; empty if everything is correct.
            is_defined: Whether the comparison covered the roles that Airflow defines.
        """
        pending = sorted({item.dag_id for item in items if item.dag_id})
        kinds = Counter(item.kind for item in items)
        reasons = Counter(failure.reason for failure in failing.values())
        for kind in KINDS:
            self._metrics.differences(kind).set(kinds[kind])
        for reason in FAILURE_REASONS:
            self._metrics.failing(reason).set(reasons[reason])
        self._metrics.pending.set(len(pending))
        for dag_id, failure in failing.items():
            if self._named.get(dag_id) != failure:
                log.warning("dag_failed", dag=dag_id, reason=failure.reason, error=failure.text)
        self._named = dict(failing)
        count = reasons["not_fixed"]
        self._dag_shortfall = f"DAGs that passes did not fix: {count}" if count else ""
        if items:
            problem = f"permissions that differ from their definition: {len(items)}"
            self.readiness = Readiness(False, revision, problem=problem)
        elif not is_defined:
            problem = "the roles' definition could not be read; a pass will write it"
            self.readiness = Readiness(False, revision, problem=problem)
        else:
            self.confirm(revision)
        self._show(
            differences=dict(kinds),
            pending_dags=pending[:NAMED_DAGS],
            pending_roles_file=[
                f"{item.row[0]}: {' on '.join(map(str, item.row[1:])) or 'the role itself'}"
                for item in nsmallest(NAMED_DAGS, (one for one in items if one.is_of_file))
            ],
            failing_dags=Names(
                (dag_id, f"{failure.reason}: {failure.text}")
                for dag_id, failure in sorted(failing.items())[:NAMED_DAGS]
            ),
        )

    def show_unread(self, problem: SidecarError | None, plugins: Iterable[str]) -> None:
        """
        Show why the roles' definition could not be read; None if it was read without these plugins.
        """
        names = ", ".join(plugins)
        lacking = f"the views of plugins that could not be imported were not compared: {names}"
        self._unread_shortfall = str(problem or (lacking if names else ""))

    def show_file(self, file: RoleFile | None, wanted: Wanted | None) -> None:
        """
        Show the state of the roles file.

        Args:
            wanted: None if the file is ignored.
        """
        if file is None:
            return
        self._metrics.mistakes.set(len(file.mistakes))
        self._file_shortfall = str(file.problem or "")
        if file.problem and file.problem.reason != "role_name_unsupported":
            self._file_shortfall = f"the roles file is ignored: {file.problem}"
        idle = [f"{one.where.key}: {one.by} {one.value}" for one in wanted.idle] if wanted else []
        self._show(
            roles_file=file.path,
            roles_file_revision=file.revision,
            roles_file_overruled=wanted.overruled[:NAMED_DAGS] if wanted else [],
            roles_file_idle=idle[:NAMED_DAGS],
        )

    def confirm(self, revision: str) -> None:
        """
        Record that the permissions are correct now.
        """
        shortfalls = (self._unread_shortfall, self._file_shortfall, self._dag_shortfall)
        shortfall = "; ".join(filter(None, shortfalls))
        self.readiness = Readiness(True, revision, published_at=time.time(), shortfall=shortfall)
        self._metrics.known_good.set_to_current_time()

    def show_mode(self, cli_because: str | None) -> None:
        """
        Show why passes run the full ``airflow sync-perm``; None if they are targeted.
        """
        for cause in CLI_CAUSES:
            self._metrics.cli(cause).set(cause == cli_because)
        self._show(mode="cli" if cli_because else "targeted", cli_because=cli_because or "")

    def show_pass(self, **facts: object) -> None:
        """
        Show the result of the last pass.
        """
        self._show(last_pass=facts)

    def _show(self, **details: object) -> None:
        self._details = {**self._details, **details}
        self.details = {k: v for k, v in self._details.items() if v not in ({}, [], "")}
