"""
What a sidecar brings; the runtime does the rest.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from sidecar_runtime.fence import Fence
from sidecar_runtime.health import Outcome, Readiness


class Names(dict[str, object]):
    """
    Facts by names that others gave, such as keys or DAGs: a page shows each name as it is.
    """


class Session(Protocol):
    """
    What belongs to one thread that runs cycles.
    """

    def cycle(self, fence: Fence) -> Outcome:
        """
        Run one cycle; every publish goes through the fence.

        Raises:
            SidecarError: What failed; what was published before stays.
            GaveUp: The same, and it is not to be tried again: the process ends.
            CycleAbandoned: The fence was revoked.
        """

    def close(self) -> None:
        """
        Let go of all that is open; the thread ends.
        """


@runtime_checkable
class Glancing(Protocol):
    """
    A session that can tell for far less than a cycle that one would find nothing to do.
    """

    def glance(self) -> bool:
        """
        Whether nothing is new; False where that cannot be told, for then a cycle says why.

        Never raises, and never takes longer than a few seconds.
        """

    @property
    def can_wait_for_news(self) -> bool:
        """
        Whether the last cycle, which has failed, will fail again until a glance sees news.
        """


class Sidecar(Protocol):
    """
    What a sidecar brings to the loop.
    """

    def begin(self) -> Session:
        """
        Return a session for the calling thread; called again in a new thread when an abandoned
        one did not come back.
        """

    def readiness(self) -> Readiness:
        """
        Tell whether what consumers need is published and valid now; cheap, from any thread.
        """

    def details(self) -> dict[str, object]:
        """
        Return what the status page shows beyond the common part; no secrets.
        """
