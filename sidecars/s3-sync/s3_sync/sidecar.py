"""
What of s3-sync outlives a cycle and its thread.
"""

from __future__ import annotations

from s3_sync.board import Board
from s3_sync.cycle import Session
from s3_sync.metrics import SyncMetrics
from s3_sync.settings import Settings
from sidecar_runtime.gate import make_gate
from sidecar_runtime.health import Readiness
from sidecar_runtime.publish import TargetLock

# With releases, the disk is looked at so often at least, and at least at every thirtieth poll; the
# polls in between are one request each.
LOOK_SECONDS = 300.0
LOOK_POLLS = 30


class S3Sync:
    """
    The sidecar that the loop runs.
    """

    def __init__(self, settings: Settings, metrics: SyncMetrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._lock = TargetLock()
        self._board = Board()
        self._gate = make_gate(settings, metrics.gate)

    @property
    def glances(self) -> int:
        """
        How many polls follow each cycle that need not be cycles.
        """
        if self._settings.source_kind != "release":
            return 0
        polls = min(LOOK_POLLS, int(LOOK_SECONDS / self._settings.interval_seconds))
        return max(0, polls - 1)

    def begin(self) -> Session:
        return Session(self._settings, self._metrics, self._lock, self._board, self._gate)

    def readiness(self) -> Readiness:
        return self._board.readiness

    def details(self) -> dict[str, object]:
        return self._board.details
