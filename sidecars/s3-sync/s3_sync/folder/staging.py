"""
The staging folder: each file is completed here before it is renamed into place.
"""

from __future__ import annotations

import itertools
import os
import stat
from contextlib import suppress
from dataclasses import dataclass

from sidecar_runtime.volume.files import set_mode

# One counter for the process: an abandoned cycle must not share names with its successor.
_NUMBERS = itertools.count()
_PROCESS = os.getpid()
_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(slots=True)
class Staging:
    """
    A file in the staging folder.

    Args:
        fd: Its descriptor; -1 once closed.
        is_verified: Whether a checksum or a digest has verified its content.
        is_placed: Whether it was renamed into place.
    """

    fd: int
    name: str
    is_verified: bool = False
    is_placed: bool = False

    def close(self) -> None:
        fd, self.fd = self.fd, -1  # closed once, even if closing fails (NFS reports quotas then)
        if fd >= 0:
            os.close(fd)


@dataclass(frozen=True, slots=True)
class StagingFolder:
    """
    Creates and completes the staging files of one target.

    Args:
        fd: The open folder; belongs to the caller.
        file_mode: The mode of new files.

    Raises:
        OSError: From every method, if the file system fails.
    """

    fd: int
    file_mode: int
    fsync: bool

    def open(self) -> Staging:
        """
        Open a new file, which must be renamed into place or discarded.
        """
        name = f"{_PROCESS}-{next(_NUMBERS)}.part"
        return Staging(os.open(name, _NEW_FILE, self.file_mode, dir_fd=self.fd), name)

    def finish(self, staging: Staging, mtime_ns: int, mode: int) -> os.stat_result:
        """
        Set the mode and time of a complete file, close it, and return its stat result.

        The time is set even if it is the current one: on NFS the server otherwise sets it after
        the close, so that it differs from the recorded time.
        """
        os.utime(staging.fd, ns=(mtime_ns, mtime_ns))
        found = os.fstat(staging.fd)
        if found.st_mode != mode:
            set_mode(staging.fd, stat.S_IMODE(mode))
            found = os.fstat(staging.fd)
        if self.fsync:
            os.fsync(staging.fd)
        staging.close()
        return found

    def discard(self, staging: Staging) -> None:
        """
        Close a file, and remove it if it was not renamed into place.
        """
        try:
            staging.close()
        finally:
            if not staging.is_placed:
                with suppress(FileNotFoundError):
                    os.unlink(staging.name, dir_fd=self.fd)
