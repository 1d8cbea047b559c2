"""
The staging folder: where a file is made whole before it is renamed into its place.
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

from s3_sync.tree.managed import Managed
from s3_sync.tree.volume import set_mode
from sidecar_runtime.volume.files import write_all

# One count for the process: an abandoned cycle must not meet the files of its successor.
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
        fd, self.fd = self.fd, -1  # closed once, even if closing fails (NFS tells of quotas then)
        if fd >= 0:
            os.close(fd)


class Staged(NamedTuple):
    """
    A file in staging that only waits for its name.

    Args:
        name: What it is called in staging.
        managed: What will be on record of it.
        replaces: Whether something was in its place.
    """

    path: str
    name: str
    managed: Managed
    replaces: bool


class StagingFolder:
    """
    The files in it that belong to one target.

    Args:
        fd: The open folder; belongs to the caller.
        file_mode: Of new files.

    Raises:
        OSError: From every method, where the file system fails.
    """

    def __init__(self, fd: int, *, file_mode: int, fsync: bool) -> None:
        self.fd = fd
        self._file_mode = file_mode
        self._fsync = fsync

    def open(self) -> Staging:
        """
        Open a new file, which is to be renamed or discarded.
        """
        name = staging_name()
        return Staging(os.open(name, _NEW_FILE, self._file_mode, dir_fd=self.fd), name)

    def fill(self, blocks: Iterable[bytes]) -> Staging:
        """
        Return a new file with that content.
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
        Give a staged file its mode and time, close it, and return what stat says of it.

        The time is set although it is the present one: on NFS a file gets its last time from the
        server, after the close, and then differs from what we record.
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
        Give a staged file the present time: readers ask what has changed since they looked.
        """
        now = time.time_ns()
        os.utime(staged.name, ns=(now, now), dir_fd=self.fd, follow_symlinks=False)
        found = os.stat(staged.name, dir_fd=self.fd, follow_symlinks=False)
        return staged.managed._replace(mtime_ns=found.st_mtime_ns)

    def drop(self, staged: Staged) -> None:
        """
        Remove a staged file that is not to be published.
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
    Return a name that no other staging file of this process has.
    """
    return f"{_PROCESS}-{next(_NUMBERS)}.part"
