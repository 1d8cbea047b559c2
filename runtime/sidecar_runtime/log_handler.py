"""
Writes log lines to a file descriptor without blocking on a slow reader.
"""

from __future__ import annotations

import logging
import os
import select
import stat
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

WAIT_SECONDS = 0.3
PAUSE_SECONDS = 60.0
KEPT_BYTES = 64 << 10


class DescriptorHandler(logging.Handler):
    """
    Writes to a pipe, a socket, a terminal or a file.

    A log driver that stops reading must not stop the process. The handler waits for it at most
    ``WAIT_SECONDS``, once in ``PAUSE_SECONDS`` and at the end of the process. Lines that cannot be
    written now are kept until the next line, up to ``KEPT_BYTES``; further lines are dropped and
    counted. The same applies to a full disk and a closed pipe.

    Args:
        report: Called with the number of dropped lines once all kept lines are written.
    """

    def __init__(self, descriptor: int, report: Callable[[int], object]) -> None:
        super().__init__()
        self._report = report
        self._descriptor = _unblocked(descriptor)
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLOUT)
        self._kept: deque[bytes] = deque()
        self._dropped = 0
        self._waits_until = float("-inf")

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = f"{self.format(record)}\n".encode(errors="backslashreplace")
        except Exception:  # noqa: BLE001 - as in every handler: lose the line, not the process
            self.handleError(record)
            return
        self.flush()
        if self._kept and sum(map(len, self._kept)) + len(line) > KEPT_BYTES:
            self._dropped += 1
            return
        self._kept.append(line)
        self.flush()

    def flush(self) -> None:
        with suppress(OSError):
            while self._kept and self._is_writable():
                # A writable pipe accepts this much without blocking, if it has no other writer.
                written = os.write(self._descriptor, self._kept[0][: select.PIPE_BUF])
                rest = self._kept.popleft()[written:]
                if rest:
                    self._kept.appendleft(rest)
        if self._dropped and not self._kept:
            count, self._dropped = self._dropped, 0
            self._report(count)

    def close(self) -> None:
        self._waits_until = time.monotonic() + WAIT_SECONDS
        self.flush()
        super().close()

    def _is_writable(self) -> bool:
        if self._poll.poll(0):
            return True
        now = time.monotonic()
        if now > self._waits_until + PAUSE_SECONDS:
            self._waits_until = now + WAIT_SECONDS
        return bool(self._poll.poll(max(0.0, self._waits_until - now) * 1000))


def _unblocked(descriptor: int) -> int:
    """
    Reopen a pipe or terminal: O_NONBLOCK would otherwise affect all processes that share it.

    A write to a terminal may block although it is writable. A pipe of another user, as in some
    container runtimes, cannot be reopened and is used as it is.
    """
    with suppress(OSError):
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY
            return os.open(f"/proc/self/fd/{descriptor}", flags)
    return descriptor
