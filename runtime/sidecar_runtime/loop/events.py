"""
The queue between signal handlers, threads and the main loop.

Not ``queue.SimpleQueue``: a signal that arrives just before its ``get`` blocks runs its Python
handler only when something else ends the wait (seen once in 1,500 SIGTERMs). A socket does not
lose it: the C handler writes a byte (``signal.set_wakeup_fd``), and the wait is for that byte.
"""

from __future__ import annotations

import select
import signal
import socket
import time
from collections import deque
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")


class Events(Generic[T]):
    """
    Many put, the main thread gets; ``put`` is safe in signal handlers.
    """

    def __init__(self) -> None:
        self._events: deque[T] = deque()
        self._wake, self._waker = socket.socketpair()
        self._wake.setblocking(False)
        self._waker.setblocking(False)

    def put(self, event: T) -> None:
        """
        Add an event and end the wait.
        """
        self._events.append(event)
        with suppress(OSError):  # full: the reader will wake anyway; closed: there is none
            self._waker.send(b"\0")

    def get(self, timeout_seconds: float) -> T | None:
        """
        Return the next event, None when the time is up.
        """
        until = time.monotonic() + timeout_seconds
        while not self._events:
            left = until - time.monotonic()
            if not select.select([self._wake], [], [], max(0.0, left))[0] and left <= 0:
                return None
            with suppress(BlockingIOError):
                self._wake.recv(4096)
        return self._events.popleft()

    def close(self) -> None:
        """
        Wait no more; what is put from now on is lost.
        """
        self._wake.close()
        self._waker.close()

    def listen_to_signals(self) -> int:
        """
        Let every signal end the wait; returns what ``signal.set_wakeup_fd`` held before.
        """
        return signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
