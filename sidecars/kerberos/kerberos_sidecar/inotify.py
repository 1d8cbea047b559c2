"""
Waits for changes in folders with Linux' inotify, without system calls while nothing changes.
"""

from __future__ import annotations

import ctypes
import os
import select
from collections.abc import Iterable
from contextlib import suppress

_MODIFY, _ATTRIB, _CLOSE_WRITE = 0x2, 0x4, 0x8
_MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x40, 0x80, 0x100, 0x200
_CHANGES = _MODIFY | _ATTRIB | _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE

# The longest wait if the kernel has no inotify watches left.
WITHOUT_SECONDS = 1.0

_libc = ctypes.CDLL(None)


class Folders:
    """
    Watches folders; for use by one thread, which other threads can wake.
    """

    def __init__(self) -> None:
        self._fd: int = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self._woken = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def wake(self) -> None:
        """
        End the current wait or the next one; callable from any thread.
        """
        os.eventfd_write(self._woken, 1)

    def wait(self, folders: Iterable[str], timeout_seconds: float) -> None:
        """
        Wait until a folder changes or :meth:`wake` is called, at most until the timeout.

        Changes that another machine makes on a network file system are not seen.
        """
        watches = [
            _libc.inotify_add_watch(self._fd, os.fsencode(folder), _CHANGES) for folder in folders
        ]
        if self._fd < 0 or min(watches, default=-1) < 0:
            timeout_seconds = min(timeout_seconds, WITHOUT_SECONDS)
        watched = [fd for fd in (self._fd, self._woken) if fd >= 0]
        for fd in select.select(watched, [], [], timeout_seconds)[0]:
            with suppress(BlockingIOError):
                while os.read(fd, 1 << 16):
                    pass
