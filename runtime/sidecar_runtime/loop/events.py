"""
The queue between signal handlers, threads and the main loop.

Not ``queue.SimpleQueue``: if a signal arrives just before its ``get`` blocks, the Python handler
runs only when something else ends the wait (seen once in 1,500 SIGTERMs). A socket has no such
gap: the C handler writes a byte (``signal.set_wakeup_fd``), and that byte ends the wait.
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
    A queue with many producers, read by the main thread; ``put`` is safe in signal handlers.
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
        with suppress(OSError):  # full: the reader wakes up regardless; closed: no reader is left
            self._waker.send(b"\0")

    def drop(self, event: T) -> None:
        """
        Remove a waiting event.
        """
        with suppress(ValueError):
            self._events.remove(event)

    def get(self, timeout_seconds: float) -> T | None:
        """
        Return the next event, or None when the time is up.
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
        Close the queue; later events are lost.
        """
        self._wake.close()
        self._waker.close()

    def listen_to_signals(self) -> int:
        """
        Let every signal end the wait; return the previous descriptor of ``signal.set_wakeup_fd``.
        """
        return signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
