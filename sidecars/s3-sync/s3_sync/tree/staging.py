"""
The staging folder: each file is completed here before it is renamed into place.
"""

from __future__ import annotations

import itertools
import os
import stat
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from s3_sync.tree.journal import Managed
from s3_sync.tree.volume import set_mode
from sidecar_runtime.volume.files import write_all

# One counter for the process: an abandoned cycle must not share names with its successor.
_NUMBERS = itertools.count()
_PROCESS = os.getpid()

_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(slots=True)
class Staging:
    """
    A file in the staging folder: its descriptor, -1 once closed, and its name.
    """

    fd: int
    name: str
    is_published: bool = False

    def close(self) -> None:
        fd, self.fd = self.fd, -1  # closed once, even if closing fails (NFS reports quotas then)
        if fd >= 0:
            os.close(fd)


class Staged(NamedTuple):
    """
    A complete file in staging, ready to be renamed into place.

    Args:
        name: The name in staging.
        managed: The facts to record.
        replaces: Whether its path is occupied.
    """

    path: str
    name: str
    managed: Managed
    replaces: bool


class StagingFolder:
    """
    Creates and completes the staging files of one target.

    Args:
        fd: The open folder; belongs to the caller.
        file_mode: The mode of new files.

    Raises:
        OSError: From every method, if the file system fails.
    """

    def __init__(self, fd: int, *, file_mode: int, fsync: bool) -> None:
        self.fd = fd
        self._file_mode = file_mode
        self._fsync = fsync

    def open(self) -> Staging:
        """
        Open a new file, which must be renamed or discarded.
        """
        name = staging_name()
        return Staging(os.open(name, _NEW_FILE, self._file_mode, dir_fd=self.fd), name)

    def fill(self, blocks: Iterable[bytes]) -> Staging:
        """
        Return a new file with the content of the blocks.
        """
        staging = self.open()
        try:
            for block in blocks:
                write_all(staging.fd, block)
        except BaseException:
            self.discard(staging)
            raise
        return staging

    def finish(self, staging: Staging, mtime_ns: int, mode: int) -> os.stat_result:
        """
        Set the mode and time of a staged file, close it, and return its stat result.

        The time is set even if it is the current one: on NFS the server otherwise sets it after
        the close, so that it differs from the recorded time.
        """
        os.utime(staging.fd, ns=(mtime_ns, mtime_ns))
        found = os.fstat(staging.fd)
        if found.st_mode != stat.S_IFREG | mode:
            set_mode(staging.fd, mode)
            found = os.fstat(staging.fd)
        if self._fsync:
            os.fsync(staging.fd)
        staging.close()
        return found

    def redate(self, staged: Staged) -> Managed:
        """
        Set a staged file to the current time, for readers that look for recent changes.
        """
        now = time.time_ns()
        os.utime(staged.name, ns=(now, now), dir_fd=self.fd, follow_symlinks=False)
        found = os.stat(staged.name, dir_fd=self.fd, follow_symlinks=False)
        return staged.managed._replace(mtime_ns=found.st_mtime_ns)

    def drop(self, staged: Staged) -> None:
        """
        Remove a staged file that will not be published.
        """
        with suppress(OSError):
            os.unlink(staged.name, dir_fd=self.fd)

    def discard(self, staging: Staging) -> None:
        """
        Close a staging file, and remove it if it was not published.
        """
        try:
            staging.close()
        finally:
            if not staging.is_published:
                with suppress(FileNotFoundError):
                    os.unlink(staging.name, dir_fd=self.fd)


def staging_name() -> str:
    """
    Return a unique name for a staging file of this process.
    """
    return f"{_PROCESS}-{next(_NUMBERS)}.part"
