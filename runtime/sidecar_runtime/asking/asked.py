"""
What consumers ask for that is not on the volume: noted by who answers them, brought by a cycle.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from sidecar_runtime.errors import SidecarError
from sidecar_runtime.metrics import Metrics

# This many are waited for at once, each once; who asks for more has to come back.
MOST = 64
# How long a failure is the answer, before the source is asked again.
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


@dataclass(slots=True)
class _Wish:
    """
    What one revision waits for, or why it was not brought.
    """

    failure: SidecarError | None = None
    until: float = 0.0


class Asked:
    """
    The revisions that are waited for; for any thread.

    Attributes:
        wake: Asks for a cycle.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.wake: Callable[[], None] = lambda: None
        self._clock = clock
        self._lock = threading.Lock()
        self._wishes: dict[str, _Wish] = {}

    def ask(self, revision: str) -> SidecarError | None:
        """
        Ask for a revision; None while it is on its way, or why it could not be brought just now.
        """
        with self._lock:
            now = self._clock()
            self._wishes = {
                name: wish
                for name, wish in self._wishes.items()
                if wish.failure is None or now < wish.until
            }
            wish = self._wishes.get(revision)
            if wish is not None:
                return wish.failure
            if len(self._wishes) >= MOST:
                return SidecarError(
                    "asked_too_much",
                    f"{MOST} other revisions are waited for, or could not be brought just now",
                )
            self._wishes[revision] = _Wish()
        self.wake()
        return None

    def waiting(self) -> list[str]:
        """
        Return what a cycle is to bring, first come first.
        """
        with self._lock:
            return [name for name, wish in self._wishes.items() if wish.failure is None]

    def settle(self, revision: str, failure: SidecarError | None = None) -> None:
        """
        Note that a revision is on the volume, or why it is not.
        """
        with self._lock:
            if failure is None:
                self._wishes.pop(revision, None)
            else:
                self._wishes[revision] = _Wish(failure, self._clock() + FAILED_SECONDS)
