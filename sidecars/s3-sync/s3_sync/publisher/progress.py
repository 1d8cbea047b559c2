"""
The progress of a command, shown on a terminal only.
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
    One line on standard error that is overwritten, and cleared when the command ends.
    """

    def __init__(self) -> None:
        self._is_shown = sys.stderr.isatty()
        self._told_at = 0.0

    def counter(self, what: str, total: int) -> Callable[[int], None]:
        """
        Return a function that takes the number of finished items.
        """
        return lambda done: self._tell(f"{what}: {done} of {total}", is_last=done >= total)

    def bytes_counter(self, what: str, total_bytes: int) -> Callable[[int], None]:
        """
        Return a function that takes the number of finished bytes.
        """
        total = f"{total_bytes / MIB:.1f} MiB"
        return lambda done: self._tell(
            f"{what}: {done / MIB:.1f} of {total}", is_last=done >= total_bytes
        )

    def clear(self) -> None:
        """
        Clear the line.
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
    A file that reports how much of it was read.
    """

    def __init__(self, path: str, tell: Callable[[int], None]) -> None:
        super().__init__(io.FileIO(path))
        self._tell = tell

    def read(self, size: int | None = -1, /) -> bytes:
        """
        Read like any file, and report the position.
        """
        data = super().read(size)
        self._tell(self.tell())
        return data
