"""
The interface that a sidecar implements; the runtime does the rest.
"""

from typing import Protocol

from sidecar_runtime.fence import Fence
from sidecar_runtime.health import Outcome, Readiness


class Names(dict[str, object]):
    """
    Facts keyed by foreign names, such as object keys or DAGs: the status page shows them unchanged.
    """


class Session(Protocol):
    """
    The state of one thread that runs cycles.
    """

    def cycle(self, fence: Fence) -> Outcome:
        """
        Run one cycle; every publish goes through the fence.

        Raises:
            SidecarError: The cycle failed; the published state is unchanged.
            GaveUp: The cycle failed and should not be retried: the process ends.
            CycleAbandoned: The fence was revoked.
        """

    def close(self) -> None:
        """
        Close all resources, because the thread ends.
        """


class Sidecar(Protocol):
    """
    The interface between a sidecar and the loop.
    """

    def begin(self) -> Session:
        """
        Return a session for the calling thread; called again in a new thread if the thread of an
        abandoned cycle does not return.
        """

    def readiness(self) -> Readiness:
        """
        Return whether what consumers need is published and valid now; cheap and thread-safe.
        """

    def details(self) -> dict[str, object]:
        """
        Return this sidecar's additional facts for the status page; no secrets.
        """
