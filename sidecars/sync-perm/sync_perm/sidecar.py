"""
The sidecar that the loop runs: what outlives a cycle and its thread.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sidecar_runtime.health import Readiness
from sync_perm.connection import Source
from sync_perm.cycle import Memory, Scope, Session
from sync_perm.passes import Passes
from sync_perm.status import Status


@dataclass(frozen=True, slots=True)
class SyncPerm:
    """
    The sidecar, for the whole process.

    Args:
        seconds: How long a cycle may take.
    """

    seconds: float
    source: Source
    passes: Passes
    scope: Scope
    status: Status
    memory: Memory = field(default_factory=Memory)

    def begin(self) -> Session:
        """
        Return a session for the calling thread; the memory outlives it.
        """
        return Session(self.seconds, self.source, self.passes, self.scope, self.status, self.memory)

    def readiness(self) -> Readiness:
        return self.status.readiness

    def details(self) -> dict[str, object]:
        return self.status.details
