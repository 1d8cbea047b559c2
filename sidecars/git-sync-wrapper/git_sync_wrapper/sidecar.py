"""
What of git-sync-wrapper outlives a cycle and its thread.
"""

from __future__ import annotations

import signal
from collections.abc import Callable

from git_sync_wrapper.cycle import Parts, Session
from sidecar_runtime.health import Readiness


class GitSyncWrapper:
    """
    The sidecar that the loop runs.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def begin(self) -> Session:
        return Session(self._parts)

    def readiness(self) -> Readiness:
        return self._parts.board.readiness

    def details(self) -> dict[str, object]:
        return self._parts.board.details()

    def watch(self, wake: Callable[[], None]) -> None:
        """
        Let the signal of ``--sync-on-signal`` ask for a cycle; SIGHUP always does.
        """
        asked = self._parts.options.sync_signal
        if asked is not None and asked != signal.SIGHUP:
            signal.signal(asked, lambda *_: wake())
