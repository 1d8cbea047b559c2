"""
What of git-sync-wrapper outlives a cycle and its thread.
"""

from __future__ import annotations

import signal
from collections.abc import Callable

from git_sync_wrapper.cycle import Session
from git_sync_wrapper.parts import Parts
from git_sync_wrapper.refs import HttpPoller
from git_sync_wrapper.secret_watch import secret_files, watch_secrets
from sidecar_runtime.health import Readiness

# A whole cycle, with its locks and looks, comes so often at least; the polls in between are one
# request each.
CYCLE_SECONDS = 300.0
CYCLE_POLLS = 30


class GitSyncWrapper:
    """
    The sidecar that the loop runs.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    @property
    def glances(self) -> int:
        """
        How many polls follow each cycle that need not be cycles; none where git is run for them.
        """
        if not isinstance(self._parts.poller, HttpPoller):
            return 0
        polls = min(CYCLE_POLLS, int(CYCLE_SECONDS / self._parts.settings.interval_seconds))
        return max(0, polls - 1)

    def begin(self) -> Session:
        return Session(self._parts)

    def readiness(self) -> Readiness:
        return self._parts.board.readiness

    def details(self) -> dict[str, object]:
        return self._parts.board.details()

    def watch(self, wake: Callable[[], None]) -> None:
        """
        Let the signal of ``--sync-on-signal`` ask for a cycle (SIGHUP always does), and a file of
        credentials that changes: a person may just have mended what was refused.
        """
        settings, options = self._parts.settings, self._parts.options
        watch_secrets(secret_files(settings, options), wake)
        asked = options.sync_signal
        if asked is not None and asked != signal.SIGHUP:
            signal.signal(asked, lambda *_: wake())
