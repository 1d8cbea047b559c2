"""
The requested revisions that the volume lacks: the socket notes them, a cycle fetches them.
"""

import time
from collections.abc import Callable

from sidecar_runtime.errors import SidecarError
from sidecar_runtime.metrics import Metrics

# At most this many revisions are pending, each once; further requests are refused.
MOST = 64
# How long a failure is the answer before the source is asked again; remembers up to MOST failures.
FAILED_SECONDS = 5.0


class AskMetrics:
    """
    The metrics of requested revisions.
    """

    def __init__(self, metrics: Metrics) -> None:
        self.requested = metrics.counter_by(
            "result", "sidecar_requested_revisions_total", "Requested older revisions, by result."
        )
        self.kept = metrics.gauge(
            "sidecar_requested_snapshots",
            "Snapshots on the volume because a consumer requested them.",
        )


class Asked:
    """
    The requested revisions: one thread asks, another one settles.

    Attributes:
        wake: Triggers a cycle.
        outage: Why the source is not asked now; its own backoff decides when it is asked again.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.wake: Callable[[], None] = lambda: None
        self.outage: SidecarError | None = None
        self._clock = clock
        # Each access is one operation, which needs no lock.
        self._waiting: dict[str, None] = {}
        self._failures: dict[str, tuple[SidecarError, float]] = {}

    def ask(self, revision: str) -> SidecarError | None:
        """
        Request a revision; return None while it is pending, or why it cannot be fetched now.
        """
        failure, until = self._failures.get(revision, (None, 0.0))
        if failure is not None and self._clock() < until:
            return failure
        if self.outage is not None:
            return SidecarError("request_in_outage", self.outage.message, self.outage.advice)
        if revision not in self._waiting:
            if len(self._waiting) >= MOST:
                return SidecarError("request_limit", f"{MOST} other revisions are pending")
            self._waiting[revision] = None
            self.wake()
        return None

    def waiting(self) -> list[str]:
        """
        Return the revisions that a cycle should fetch, in the order of the requests.
        """
        return list(self._waiting)

    def settle(self, revision: str, failure: SidecarError | None = None) -> None:
        """
        Note that a revision is on the volume, or why it could not be fetched.
        """
        self._failures.pop(revision, None)
        if failure is not None:
            if len(self._failures) >= MOST:
                del self._failures[next(iter(self._failures))]
            self._failures[revision] = failure, self._clock() + FAILED_SECONDS
        self._waiting.pop(revision, None)
