"""
The token that a publish asks for, so that an abandoned cycle can never publish.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from sidecar_runtime.errors import SidecarError


class CycleAbandoned(Exception):
    """
    The cycle was abandoned (timeout or shutdown); whatever it still does must not show.
    """


class Fence:
    """
    Enter it around every publish: ``with fence: os.rename(...)``.

    Args:
        is_asked_for: Whether a person asked for this cycle, by SIGHUP.
        in_flight_seconds: How long :meth:`revoke` waits for a publish that is under way.

    Attributes:
        blame: What the cycle waits for, where it knows: the failure that is recorded when it is
            abandoned meanwhile, instead of ``cycle_timeout``.

    Raises:
        CycleAbandoned: On entering, once the fence is revoked.
    """

    def __init__(self, *, is_asked_for: bool = False, in_flight_seconds: float = 0.4) -> None:
        self.is_asked_for = is_asked_for
        self._in_flight_seconds = in_flight_seconds
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

    @property
    def is_revoked(self) -> bool:
        return self._revoked.is_set()

    def on_revoke(self, callback: Callable[[], object]) -> None:
        """
        Call back when revoked, from the revoking thread, or at once if it is revoked already.

        The callback must not block, and may be called twice.
        """
        self._callbacks.append(callback)
        if self.is_revoked:
            callback()

    def forget(self, callback: Callable[[], object]) -> None:
        """
        Do not call back any more: a fence may outlive what it ends.
        """
        self._callbacks.remove(callback)

    def wait(self, seconds: float) -> None:
        """
        Sleep, unless it is revoked.

        Raises:
            CycleAbandoned: It was revoked.
        """
        if self._revoked.wait(seconds):
            raise CycleAbandoned

    def revoke(self) -> None:
        """
        Let no further publish begin, and wait briefly for one that is under way.

        A publish that is stuck in the kernel (a dead network file system) is not waited for.
        """
        self._revoked.set()
        for callback in list(self._callbacks):
            callback()
        if self._lock.acquire(timeout=self._in_flight_seconds):
            self._lock.release()
