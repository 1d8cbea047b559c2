"""
The state of s3-sync that outlives a cycle and its thread.
"""

from __future__ import annotations

from collections.abc import Callable

from s3_sync.cycle.cycle import Session
from s3_sync.metrics import SyncMetrics
from s3_sync.open_source import OpenClient, open_client
from s3_sync.settings import PREFIX, Settings
from s3_sync.status import Status
from sidecar_runtime.asking.asked import Asked
from sidecar_runtime.gate.gate import make_gate
from sidecar_runtime.health import Readiness
from sidecar_runtime.volume.lock import TargetLock


class S3Sync:
    """
    The sidecar that the loop runs.

    Args:
        open_client: Creates the S3 client for one thread.
    """

    def __init__(
        self, settings: Settings, metrics: SyncMetrics, open_client: OpenClient = open_client
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._open_client = open_client
        self._lock = TargetLock()
        self._status = Status()
        pin = f"{PREFIX}REVISION" if settings.revision else ""
        self._gate = make_gate(settings, metrics.gate, pin=pin)
        self._asked = Asked() if settings.answers else None

    def begin(self) -> Session:
        requests = self._metrics.requests
        return Session(
            self._settings,
            self._metrics,
            self._lock,
            self._status,
            self._gate,
            self._asked,
            self._open_client(self._settings, lambda operation: requests[operation].inc()),
        )

    def watch(self, wake: Callable[[], None]) -> None:
        """
        Let requests for a release trigger a cycle.
        """
        if self._asked is not None:
            self._asked.wake = wake

    def readiness(self) -> Readiness:
        return self._status.readiness

    def details(self) -> dict[str, object]:
        return self._status.details
