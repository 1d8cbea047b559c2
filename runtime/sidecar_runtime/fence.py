"""
The token that guards every publish, so that an abandoned cycle begins none.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sidecar_runtime.errors import SidecarError


class CycleAbandoned(Exception):
    """
    The cycle was abandoned (timeout or shutdown); nothing more of it may be published.
    """


def waits_for(what: str) -> str:
    """
    Return what a cycle waits for from now on, to be put after a sentence.

    Args:
        what: Such as ``git ls-remote of https://git.example.com/dags.git``.
    """
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return f": since {now} it waits for {what}"


class Fence:
    """
    Enter it around every publish: ``with fence: os.rename(...)``.

    Args:
        is_asked_for: Whether SIGHUP triggered this cycle.
        in_flight_seconds: How long :meth:`revoke` waits for a publish that is in
            progress.

    Attributes:
        step: What the cycle waits for, as :func:`waits_for` says it; for whoever asks
            why it takes so long.
        blame: The failure that the cycle is waiting out, if it knows one: told instead
            of ``cycle_slow``, and of ``cycle_timeout`` when the cycle is abandoned.

    Raises:
        CycleAbandoned: On entering, once the fence is revoked.
    """

    def __init__(
        self, *, is_asked_for: bool = False, in_flight_seconds: float = 0.4
    ) -> None:
        self.is_asked_for = is_asked_for
        self._in_flight_seconds = in_flight_seconds
        self.step = ""
        self.blame: SidecarError | None = None
        self._lock = threading.Lock()
        self._revoked = threading.Event()
        self._callbacks: list[Callable[[], object]] = []

    def __enter__(self) -> None:
        self._lock.acquire()
        if self.is_revoked:
            self._lock.release()
            raise CycleAbandoned

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """
        A context in which the cycle waits for this.
        """
        before = self.step
        self.step = waits_for(what)
        try:
            yield
        finally:
            self.step = before

    @property
    def is_revoked(self) -> bool:
        return self._revoked.is_set()

    def on_revoke(self, callback: Callable[[], object]) -> None:
        """
        Call back on revocation, from the revoking thread, or now if it is revoked
        already.

        The callback must not block, and may be called twice.
        """
        self._callbacks.append(callback)
        if self.is_revoked:
            callback()

    def forget(self, callback: Callable[[], object]) -> None:
        """
        Remove a callback: a fence may outlive the process or object that the callback
        ends.
        """
        self._callbacks.remove(callback)

    def wait(self, seconds: float) -> None:
        """
        Sleep until the time is up or the fence is revoked.

        Raises:
            CycleAbandoned: The fence was revoked.
        """
        if self._revoked.wait(seconds):
            raise CycleAbandoned

    def revoke(self) -> None:
        """
        Allow no further publish, and wait briefly for one that is in progress.

        The wait is bounded: a publish may be stuck in the kernel (a dead network file
        system). That one is finished once the kernel lets it go on.
        """
        self._revoked.set()
        for callback in list(self._callbacks):
            callback()
        if self._lock.acquire(timeout=self._in_flight_seconds):
            self._lock.release()
