"""
The sidecar: state of git-sync-wrapper that outlives a cycle and its thread.
"""

from __future__ import annotations

import signal
from collections.abc import Callable

from git_sync_wrapper.context import Context
from git_sync_wrapper.cycle import Session
from git_sync_wrapper.secret_watch import secret_files, watch_secrets
from sidecar_runtime.health import Readiness


class GitSyncWrapper:
    """
    The sidecar that the loop runs.
    """

    def __init__(self, context: Context) -> None:
        self._context = context

    def begin(self) -> Session:
        return Session(self._context)

    def readiness(self) -> Readiness:
        readiness = self._context.status.readiness
        said = readiness.shortfall, self._context.hooks.problem
        return readiness._replace(shortfall="; ".join(filter(None, said)))

    def details(self) -> dict[str, object]:
        return self._context.status.details()

    def watch(self, wake: Callable[[], None]) -> None:
        """
        Call `wake` for a cycle on the signal of ``--sync-on-signal`` (the loop handles SIGHUP), on
        a changed credentials file, which may fix a refused login, and when a consumer requests a
        commit.
        """
        if self._context.asked is not None:
            self._context.asked.wake = wake
        settings, options = self._context.settings, self._context.options
        watch_secrets(secret_files(settings, options), wake)
        asked = options.sync_signal
        if asked is not None and asked != signal.SIGHUP:
            signal.signal(asked, lambda *_: wake())
