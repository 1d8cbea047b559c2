"""
The state of sync-perm that outlives a cycle and its thread.
"""

from __future__ import annotations

from functools import partial

from sidecar_runtime.health import Readiness
from sync_perm.airflow.passes import AirflowPasses
from sync_perm.comparison import Comparison
from sync_perm.cycle import Session
from sync_perm.database.connection import Source
from sync_perm.metrics import PermMetrics
from sync_perm.pace import Pace, PassHistory
from sync_perm.settings import Settings
from sync_perm.status import Status


class SyncPerm:
    """
    The sync-perm sidecar, as run by the loop.
    """

    def __init__(
        self,
        settings: Settings,
        source: Source,
        passes: AirflowPasses,
        comparison: Comparison,
        metrics: PermMetrics,
        status: Status,
        pace: Pace = Pace(),  # noqa: B008 - it is frozen
    ) -> None:
        self._status = status
        status.show_mode(passes.cli_because)
        # One session per thread; the state that outlives it is shared.
        self.begin = partial(
            Session,
            settings,
            source,
            passes,
            comparison,
            metrics=metrics,
            status=status,
            history=PassHistory(pace),
        )

    def readiness(self) -> Readiness:
        return self._status.readiness

    def details(self) -> dict[str, object]:
        return self._status.details
