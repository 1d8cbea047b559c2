"""
What a sidecar brings; the runtime does the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from sidecar_runtime.fence import Fence
from sidecar_runtime.health import Outcome, Readiness

Cycle = Callable[[Fence], Outcome]


class Sidecar(Protocol):
    """
    What a sidecar brings to the loop.
    """

    def begin(self) -> Cycle:
        """
        Return the cycle; called in the thread that will run it, and again in a new thread when
        an abandoned one did not come back.
        """

    def readiness(self) -> Readiness:
        """
        Tell whether what consumers need is published and valid now; cheap, from any thread.
        """

    def details(self) -> dict[str, object]:
        """
        Return what the status page shows beyond the common part; no secrets.
        """
