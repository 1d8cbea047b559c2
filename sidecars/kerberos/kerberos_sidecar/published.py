"""
What is on the volume, read only when it has changed.
"""

from __future__ import annotations

import os
import stat
from threading import Lock

from kerberos_sidecar.formats.ccache import SIZE_LIMIT_BYTES, read_ticket
from kerberos_sidecar.formats.regular import read_regular
from kerberos_sidecar.plan import Found


class Published:
    """
    The ccache at one path, as consumers see it now; safe between threads.

    Args:
        mode: What consumers need; one without these bits, such as the 0600 of a ``kinit``, is bad.

    Attributes:
        group: The group that our own file got, where the system gave it another than its folder's.
    """

    def __init__(self, path: str, mode: int) -> None:
        self._path = path
        self._mode = mode
        self.group: int | None = None
        # Ten thousand entries, which a consumer may have made, take 0.2 s: one thread reads them.
        self._lock = Lock()
        self._seen: tuple[tuple[int, ...], Found] | None = None

    def look(self) -> Found:
        """
        Return what is there; never fails.
        """
        try:
            found = os.stat(self._path, follow_symlinks=False)
            group = os.stat(os.path.dirname(self._path)).st_gid
        except OSError as error:
            return Found(problem=f"is not there ({error.strerror})")
        stamp: tuple[int, ...] = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
        # Who may write can put the modification time back.
        stamp += (found.st_ctime_ns, found.st_mode, found.st_gid, group, self.group or 0)
        with self._lock:
            if self._seen is None or self._seen[0] != stamp:
                self._seen = (stamp, self._read(found, group))
            return self._seen[1]

    def closed_folder(self) -> str:
        """
        Return why consumers of the folder's group cannot come to the file; empty where they can.

        Those of our uid, and others where the folder lets them in, read it all the same: who the
        consumers are is not known here, so it is no problem of what is published.
        """
        folder = os.path.dirname(self._path)
        try:
            mode = stat.S_IMODE(os.stat(folder).st_mode)
        except OSError:
            return ""  # the file is not there either
        if not self._mode & stat.S_IRGRP or mode & stat.S_IXGRP:
            return ""
        return f"is in {folder} of mode {mode:04o}, which its group may not enter"

    def _read(self, found: os.stat_result, group: int) -> Found:
        try:
            ticket = read_ticket(read_regular(self._path, SIZE_LIMIT_BYTES))
        except OSError as error:
            return Found(None, found.st_mtime, f"cannot be read ({error.strerror})")
        except ValueError as error:
            return Found(None, found.st_mtime, str(error))
        return Found(ticket, found.st_mtime, self._closed(found, group))

    def _closed(self, found: os.stat_result, group: int) -> str:
        """
        Return why a consumer of the group cannot read it; empty where it can.
        """
        mode = stat.S_IMODE(found.st_mode)
        if self._mode & ~mode:
            return f"has mode {mode:04o}, which lacks some of {self._mode:04o}"
        is_open_to_group = mode & stat.S_IROTH or not self._mode & stat.S_IRGRP
        if is_open_to_group or found.st_gid in (group, self.group):
            return ""
        return f"has the group {found.st_gid}, not {group} as its folder"
