"""
The way of a ccache onto its volume: a private file beside it, then a rename.

Beside a ccache ``NAME`` there is, while a ticket is published:

- ``.NAME.<random>.new``, the file that will be renamed. Who writes it holds a ``flock`` on it, and
  so says to everybody that it is in use: the names are random and nobody waits for anybody.
- ``.NAME.<random>.folder``, a folder that a consumer made where the ccache belongs. It stays
  unless it is empty.

A killed process leaves the first without the lock; anyone's next :class:`Staging` removes it.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import secrets
from contextlib import suppress
from typing import Self

from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.files import write_all

# Written before the KDC is asked: a full volume costs it no request.
ROOM_BYTES = 4096

NEW, ASIDE = ".new", ".folder"

log = get_logger("ccache")


class Staging:
    """
    The private file of one publish; a ``with`` statement makes and removes it.

    Args:
        path: The ccache.
        mode: Of the published file.
        fence: Entered for the rename.

    Attributes:
        group: The group of the file, which the system may not let us choose.

    Raises:
        SidecarError: On entering and publishing: the folder is missing, full or not writable.
    """

    def __init__(self, path: str, mode: int, fence: Fence) -> None:
        self._path = path
        self._mode = mode
        self._fence = fence
        self._fd = -1
        self._stem = ""
        self.group = -1

    def __enter__(self) -> Self:
        try:
            self._sweep()
            self._open()
        except OSError as error:
            self._discard()
            raise explain_os_error(error, self._path) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._discard()

    def publish(self, content: bytes) -> None:
        """
        Replace the ccache as a whole.

        A crash half-way leaves the old ccache.

        Raises:
            SidecarError: The volume is full, or fails; the old ccache is untouched.
            CycleAbandoned: The fence was revoked; the old ccache is untouched.
        """
        try:
            os.ftruncate(self._fd, 0)
            os.lseek(self._fd, 0, os.SEEK_SET)
            write_all(self._fd, content)
            os.fsync(self._fd)
            with self._fence:
                self._replace()
        except OSError as error:
            raise explain_os_error(error, self._path) from error

    def _replace(self) -> None:
        """
        Rename the new ccache to its place; a folder there, made by a consumer, is put aside.

        What is in that folder may be of value: it is kept.
        """
        try:
            os.rename(self._stem + NEW, self._path)
        except IsADirectoryError:
            os.rename(self._path, self._stem + ASIDE)
            os.rename(self._stem + NEW, self._path)
            with suppress(OSError):  # not empty
                os.rmdir(self._stem + ASIDE)
            log.warning("folder_put_aside", ccache=self._path, folder=self._stem + ASIDE)

    def _open(self) -> None:
        folder, name = os.path.split(self._path)
        while True:
            self._stem = os.path.join(folder, f".{name}.{secrets.token_hex(8)}")
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._fd = os.open(self._stem + NEW, flags, 0o600)
            with suppress(OSError):  # a file system without locks: leftovers will stay there
                fcntl.flock(self._fd, fcntl.LOCK_EX)
            if os.path.lexists(self._stem + NEW):  # not all file systems count links
                break
            os.close(self._fd)  # swept by another before we had the lock
            self._fd = -1
        self._take_group()
        self.group = os.fstat(self._fd).st_gid
        os.fchmod(self._fd, self._mode)  # after the group: to change it clears bits
        write_all(self._fd, bytes(ROOM_BYTES))

    def _take_group(self) -> None:
        """
        Give the file the group of its folder, where the system allows it.

        An access point of EFS squashes ids and refuses; a group that is not ours, too.
        """
        group = os.stat(os.path.dirname(self._path)).st_gid
        if os.fstat(self._fd).st_gid == group:
            return
        try:
            os.fchown(self._fd, -1, group)
        except OSError as error:
            log.debug("group_not_set", ccache=self._path, group=group, error=error.strerror)

    def _sweep(self) -> None:
        """
        Remove what killed processes left beside this ccache.
        """
        folder, name = os.path.split(self._path)
        for left in glob.glob(os.path.join(glob.escape(folder), f".{glob.escape(name)}.*{NEW}")):
            with suppress(OSError), open(_open_for_lock(left), "rb") as file:
                # In use, or on a file system without locks: an error, and it stays.
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(left)
                log.info("leftover_removed", path=left)

    def _discard(self) -> None:
        if self._stem:
            with suppress(OSError):
                os.unlink(self._stem + NEW)
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _open_for_lock(path: str) -> int:
    """
    Open a leftover; NFS locks only what may be written, and another uid's may only be read.
    """
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(path, os.O_RDWR | flags)
    except PermissionError:
        return os.open(path, os.O_RDONLY | flags)


def explain_os_error(error: OSError, path: str) -> SidecarError:
    """
    Return the failure for an error of the file system around a ccache.
    """
    folder = os.path.dirname(path)
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return SidecarError(
                "ccache_full",
                f"there is no room in {folder}: {error.strerror}",
                "Enlarge the volume (sizeLimit). The last ccache is whole.",
            )
        case errno.EPERM:
            return SidecarError(
                "ccache_denied",
                f"cannot replace {path} as uid {os.getuid()}: {error.strerror}",
                "The ccache there is another uid's, and the folder has the sticky bit: take that "
                "off (chmod -t; mode 2770 is right for several uids).",
            )
        case errno.EACCES | errno.EROFS:
            return SidecarError(
                "ccache_denied",
                f"cannot write {path} as uid {os.getuid()} with group {os.getgid()}: "
                f"{error.strerror}",
                "Set KERBEROS_CCACHE to a folder of a volume that is writable here: an emptyDir "
                "with the pod's fsGroup. A folder from a Secret is always read-only.",
            )
        case errno.ENOENT | errno.ENOTDIR:
            return SidecarError(
                "ccache_missing",
                f"the folder {folder} does not exist",
                "Mount the volume for the ccache there, or correct KERBEROS_CCACHE.",
            )
    return SidecarError("ccache_failed", f"cannot write {path}: {error.strerror}")
