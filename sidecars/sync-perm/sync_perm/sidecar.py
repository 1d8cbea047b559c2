"""
The sidecar that the loop runs: what outlives a cycle and its thread.
"""

from __future__ import annotations

from functools import partial

from sidecar_runtime.health import Readiness
from sync_perm.connection import Source
from sync_perm.cycle import Memory, Scope, Session
from sync_perm.passes import Passes
from sync_perm.settings import Settings
from sync_perm.status import Status


class SyncPerm:
    """
    The sidecar, for the whole process.
    """

    def __init__(
        self, settings: Settings, source: Source, passes: Passes, scope: Scope, status: Status
    ) -> None:
        self._status = status
        status.show_mode(passes.cli_because)
        # One session per thread; the memory outlives it.
        self.begin = partial(Session, settings, source, passes, scope, status, Memory())

    def readiness(self) -> Readiness:
        return self._status.readiness

    def details(self) -> dict[str, object]:
        return self._status.details
