"""
What of sync-perm outlives a cycle and its thread.
"""

from __future__ import annotations

from sidecar_runtime.health import Readiness
from sync_perm.airflow_pass import AirflowPasses
from sync_perm.board import Board
from sync_perm.comparison import Comparison
from sync_perm.connection import Source
from sync_perm.cycle import PassHistory, Session
from sync_perm.metrics import PermMetrics
from sync_perm.settings import Settings


class SyncPerm:
    """
    The sidecar that the loop runs.
    """

    def __init__(
        self,
        settings: Settings,
        source: Source,
        passes: AirflowPasses,
        comparison: Comparison,
        metrics: PermMetrics,
        board: Board,
    ) -> None:
        self._settings = settings
        self._source = source
        self._passes = passes
        self._comparison = comparison
        self._metrics = metrics
        self._board = board
        self._history = PassHistory()

    def begin(self) -> Session:
        return Session(
            self._settings,
            self._source,
            self._passes,
            self._comparison,
            metrics=self._metrics,
            board=self._board,
            history=self._history,
        )

    def readiness(self) -> Readiness:
        return self._board.readiness

    def details(self) -> dict[str, object]:
        return self._board.details
