"""
The sidecar that the loop runs: its accounts, what it answers from memory, and who looks at them.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from kerberos_sidecar.account import Account
from kerberos_sidecar.cycle import Cycle, revision
from kerberos_sidecar.metrics import KerberosMetrics
from kerberos_sidecar.settings import Settings
from sidecar_runtime.fence import Fence
from sidecar_runtime.health import Outcome, Readiness
from sidecar_runtime.logs import get_logger

# How often to look at keytabs and ccaches, and the shortest time between two looks.
LOOK_SECONDS = 5.0
PAUSE_SECONDS = 0.2

log = get_logger("sidecar")


class KerberosSidecar:
    """
    The kerberos sidecar, for the whole process.

    Cycles decide and act, in one thread. Another thread looks at the volumes, keeps what
    `readiness` answers up to date, and wakes the loop when a cycle would have something to do: it
    may wait for a dead volume, or a cycle for a silent KDC, and HTTP and signals for neither.
    """

    def __init__(self, settings: Settings, metrics: KerberosMetrics) -> None:
        self._settings = settings
        self._accounts = [Account(entry, settings) for entry in settings.entries]
        self._cycle = Cycle(settings, metrics, self._accounts)
        self._wake: Callable[[], None] = lambda: None
        self._is_busy = False
        self._settled = threading.Event()

    def begin(self) -> KerberosSidecar:
        return self

    def cycle(self, fence: Fence) -> Outcome:
        """
        Run one cycle, as :meth:`Cycle.run` does.
        """
        self._is_busy = True
        try:
            return self._cycle.run(fence)
        finally:
            self._is_busy = False
            self._settled.set()

    def close(self) -> None:
        """
        Do nothing: a cycle holds no resources.
        """

    def watch(self, wake: Callable[[], None]) -> None:
        """
        Start to look, with a function that requests a cycle; warn if readers of a ccache can also
        read its keytab.
        """
        self._wake = wake
        for account in self._accounts:
            keytab, ccache = account.entry.keytab, account.entry.ccache
            folder = os.path.dirname(keytab) if keytab else self._settings.keytab_dir
            if os.path.realpath(os.path.dirname(ccache)) == os.path.realpath(folder):
                log.warning("keytab_exposed", folder=folder, ccache=ccache)
        threading.Thread(target=self._look, name="look", daemon=True).start()

    def readiness(self) -> Readiness:
        """
        Return whether every ccache is valid now, no matter which process wrote it; from memory.
        """
        problems = [problem for account in self._accounts if (problem := account.problem())]
        times = [account.found.published_at for account in self._accounts]
        published_at = min((at for at in times if at is not None), default=None)
        return Readiness(not problems, revision(self._accounts), published_at, "; ".join(problems))

    def details(self) -> dict[str, object]:
        """
        Return the facts about each ccache, by path.
        """
        return {account.entry.ccache: account.details() for account in self._accounts}

    def _look(self) -> None:
        while True:
            for account in self._accounts:
                account.look()
            wait_seconds = min(one.next_at for one in self._accounts) - time.monotonic()
            if not self._is_busy and any(map(_has_news, self._accounts)):
                self._settled.clear()
                self._wake()
                wait_seconds = LOOK_SECONDS
            self._settled.wait(min(LOOK_SECONDS, max(PAUSE_SECONDS, wait_seconds)))
            self._settled.clear()


def _has_news(account: Account) -> bool:
    """
    Whether a cycle would try a principal, or find that it needs no longer.
    """
    if account.cause() is None:
        return account.state.failed is not None
    return not account.is_waiting()
