"""
How far a command is, on a terminal; nothing elsewhere.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable

from s3_sync.publisher.report import MIB

EVERY_SECONDS = 0.1


class Progress:
    """
    One line on standard error that is written over; gone when the command ends.
    """

    def __init__(self) -> None:
        self._is_shown = sys.stderr.isatty()
        self._told_at = 0.0

    def counter(self, what: str, total: int) -> Callable[[int], None]:
        """
        Return the function that takes the number of things that are done.
        """
        return lambda done: self._tell(f"{what}: {done} of {total}", is_last=done >= total)

    def bytes_counter(self, what: str, total_bytes: int) -> Callable[[int], None]:
        """
        Return the function that takes the number of bytes that are done.
        """
        total = f"{total_bytes / MIB:.1f} MiB"
        return lambda done: self._tell(
            f"{what}: {done / MIB:.1f} of {total}", is_last=done >= total_bytes
        )

    def clear(self) -> None:
        """
        Wipe the line.
        """
        if self._is_shown and self._told_at:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def _tell(self, text: str, *, is_last: bool) -> None:
        now = time.monotonic()
        if self._is_shown and (is_last or now - self._told_at >= EVERY_SECONDS):
            self._told_at = now
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()


class Watched(io.BufferedReader):
    """
    A file that tells how much of it was read.
    """

    def __init__(self, path: str, tell: Callable[[int], None]) -> None:
        super().__init__(io.FileIO(path))
        self._tell = tell

    def read(self, size: int | None = -1, /) -> bytes:
        """
        Read as any file, and tell where we are.
        """
        data = super().read(size)
        self._tell(self.tell())
        return data
