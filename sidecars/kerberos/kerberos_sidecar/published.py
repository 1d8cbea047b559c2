"""
What is on the volume, read only when it has changed.
"""

from __future__ import annotations

import os

from kerberos_sidecar.formats.ccache import SIZE_LIMIT_BYTES, read_ticket
from kerberos_sidecar.formats.regular import read_regular
from kerberos_sidecar.plan import Found


class Published:
    """
    The ccache at one path, as consumers see it now; safe between threads.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        # Replaced as a whole, so that threads need no lock.
        self._seen: tuple[tuple[int, int, int, int], Found] | None = None

    def look(self) -> Found:
        """
        Return what is there; never fails.
        """
        try:
            stat = os.stat(self._path, follow_symlinks=False)
        except OSError as error:
            return Found(problem=f"is not there ({error.strerror})")
        stamp = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
        seen = self._seen
        if seen is None or seen[0] != stamp:
            seen = self._seen = (stamp, self._read(stat.st_mtime))
        return seen[1]

    def _read(self, published_at: float) -> Found:
        try:
            content = read_regular(self._path, SIZE_LIMIT_BYTES)
            return Found(read_ticket(content), published_at)
        except OSError as error:
            return Found(None, published_at, f"cannot be read ({error.strerror})")
        except ValueError as error:
            return Found(None, published_at, str(error))
