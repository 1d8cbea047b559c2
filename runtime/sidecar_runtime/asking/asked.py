"""
What consumers ask for that is not on the volume: noted by who answers them, brought by a cycle.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from sidecar_runtime.errors import SidecarError
from sidecar_runtime.metrics import Metrics

# This many are waited for at once, each once; who asks for more has to come back.
MOST = 64
# How long a failure is the answer, before the source is asked again; as many are remembered.
FAILED_SECONDS = 5.0


class AskMetrics:
    """
    What being asked adds to the metrics of a sidecar.
    """

    def __init__(self, metrics: Metrics) -> None:
        self.brought = metrics.counter_by(
            "result", "sidecar_asked_revisions_total", "Older revisions asked for, by result."
        )
        self.kept = metrics.gauge(
            "sidecar_asked_snapshots", "Snapshots on the volume because they were asked for."
        )


class Asked:
    """
    The revisions that are waited for; for any thread.

    Attributes:
        wake: Asks for a cycle.
        outage: Why nothing is asked of the source now: its own backoff decides when it is again.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.wake: Callable[[], None] = lambda: None
        self.outage: SidecarError | None = None
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: dict[str, None] = {}
        self._failures: dict[str, tuple[SidecarError, float]] = {}

    def ask(self, revision: str) -> SidecarError | None:
        """
        Ask for a revision; None while it is on its way, or why it could not be brought just now.
        """
        with self._lock:
            now = self._clock()
            self._failures = {
                name: (failure, until)
                for name, (failure, until) in self._failures.items()
                if now < until
            }
            if revision in self._failures:
                return self._failures[revision][0]
            if self.outage is not None:
                return SidecarError("asked_in_outage", self.outage.message, self.outage.advice)
            if revision in self._waiting:
                return None
            if len(self._waiting) >= MOST:
                return SidecarError("asked_too_much", f"{MOST} others are waited for")
            self._waiting[revision] = None
        self.wake()
        return None

    def waiting(self) -> list[str]:
        """
        Return what a cycle is to bring, first come first.
        """
        with self._lock:
            return list(self._waiting)

    def settle(self, revision: str, failure: SidecarError | None = None) -> None:
        """
        Note that a revision is on the volume, or why it is not.
        """
        with self._lock:
            self._waiting.pop(revision, None)
            if failure is not None:
                if len(self._failures) >= MOST:
                    del self._failures[next(iter(self._failures))]
                self._failures[revision] = failure, self._clock() + FAILED_SECONDS
