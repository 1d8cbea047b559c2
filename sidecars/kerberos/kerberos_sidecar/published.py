"""
Reads the published ccache, only when it has changed.
"""

from __future__ import annotations

import os
import stat
from threading import Lock

from kerberos_sidecar.formats.ccache import SIZE_LIMIT_BYTES, read_ticket
from kerberos_sidecar.plan import Found
from sidecar_runtime.volume.files import read_file


class Published:
    """
    The ccache at one path, as consumers see it now; thread-safe.

    Args:
        mode: The bits that consumers need; a file without them, such as a ``kinit``'s 0600, is bad.

    Attributes:
        group: The group of the files that we create there: the system may refuse the folder's.
    """

    def __init__(self, path: str, mode: int) -> None:
        self._path = path
        self._mode = mode
        self.group: int | None = None
        # A consumer may have added ten thousand entries, which take 0.2 s: one thread reads them.
        self._lock = Lock()
        self._seen: tuple[tuple[int, ...], Found] | None = None

    def look(self) -> Found:
        """
        Return the state of the ccache; never raises for a bad one.
        """
        try:
            found = os.stat(self._path, follow_symlinks=False)
            group = os.stat(os.path.dirname(self._path)).st_gid
        except OSError as error:
            return Found(problem=f"cannot be found ({error.strerror})")
        stamp: tuple[int, ...] = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
        # A process that can write the file can also reset its modification time.
        stamp += (found.st_ctime_ns, found.st_mode, found.st_gid, group, self.group or 0)
        with self._lock:
            if self._seen is None or self._seen[0] != stamp:
                self._seen = (stamp, self._read(found, group))
            return self._seen[1]

    def closed_folder(self) -> str:
        """
        Return why consumers in the folder's group cannot reach the file; empty if they can.

        Consumers with our uid can still read it, and so can others if the folder admits them. Which
        ids the consumers have is unknown here, so this is a warning, not a fault of the ccache.
        """
        folder = os.path.dirname(self._path)
        try:
            mode = stat.S_IMODE(os.stat(folder).st_mode)
        except OSError:
            return ""  # the file does not exist either
        if not self._mode & stat.S_IRGRP or mode & stat.S_IXGRP:
            return ""
        return f"is in {folder} (mode {mode:04o}), which its group cannot enter"

    def _read(self, found: os.stat_result, group: int) -> Found:
        holder = f"uid {found.st_uid} with group {found.st_gid}"
        try:
            ticket = read_ticket(read_file(self._path, SIZE_LIMIT_BYTES))
        except OSError as error:
            problem = f"cannot be read ({error.strerror})"
            is_closed = isinstance(error, PermissionError)
            return Found(None, found.st_mtime, problem, holder if is_closed else "")
        except ValueError as error:
            return Found(None, found.st_mtime, str(error))
        problem = self._closed(found, group)
        return Found(ticket, found.st_mtime, problem, holder if problem else "")

    def _closed(self, found: os.stat_result, group: int) -> str:
        """
        Return why a consumer in the group cannot read the file; empty if it can.
        """
        mode = stat.S_IMODE(found.st_mode)
        if self._mode & ~mode:
            return f"has mode {mode:04o} but needs at least {self._mode:04o}"
        is_open_to_group = mode & stat.S_IROTH or not self._mode & stat.S_IRGRP
        if is_open_to_group or found.st_gid in (group, self.group):
            return ""
        return f"has group {found.st_gid}, not its folder's group {group}"
