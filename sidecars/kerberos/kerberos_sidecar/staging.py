"""
Publishes a ccache: writes a private file beside it, then renames that file.

These files may exist beside a ccache ``NAME``:

- ``.NAME.<random>.new``, the file to be renamed. Its writer holds a ``flock`` on it, which marks it
  as in use. Names are random, so writers never wait for each other.
- ``.NAME.<random>.kept``, a folder or a keytab that was at the ccache's path. It stays, unless it
  is an empty folder.

A killed process leaves the first unlocked; the next :class:`Staging` of any process removes it.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import secrets
import stat
from contextlib import suppress
from typing import Self

from kerberos_sidecar.formats.keytab import SIZE_LIMIT_BYTES, parse_keytab
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.files import read_file, write_all

# Reserved before the KDC is asked, so that a full volume costs no request.
ROOM_BYTES = 4096

NEW, ASIDE = ".new", ".kept"

log = get_logger("ccache")


class Staging:
    """
    The private file for one publish; a ``with`` statement creates and removes it.

    Args:
        path: The ccache.
        mode: The mode of the published file.
        fence: Entered for the rename.

    Attributes:
        group: The group of the file; the system may refuse the folder's group.

    Raises:
        SidecarError: On entering and publishing: the folder is missing, full or not writable. On
            entering: the volume does not keep the mode.
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
        mode = stat.S_IMODE(os.fstat(self._fd).st_mode)
        if self._mode & ~mode:  # as on CIFS; consumers could not read the ccache
            self._discard()
            raise SidecarError(
                "ccache_failed",
                f"{self._path} would have mode {mode:04o} instead of {self._mode:04o}: its volume "
                "gives all files the same mode",
                f"Mount the volume with file_mode={self._mode:04o}, or set KERBEROS_CCACHE_MODE to "
                f"{self._mode & mode:04o} if consumers run with this uid.",
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._discard()

    def publish(self, content: bytes) -> None:
        """
        Replace the ccache atomically.

        A crash half-way leaves the old ccache.

        Raises:
            SidecarError: The volume is full or fails; the old ccache is untouched.
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
        Rename the new file to the ccache's path; move a folder or a keytab that is there aside.

        Its content may exist nowhere else, so it is kept.
        """
        kept = self._stem + ASIDE
        is_folder = os.path.isdir(self._path) and not os.path.islink(self._path)
        if is_folder or _is_keytab(self._path):
            os.rename(self._path, kept)
            with suppress(OSError):  # not an empty folder
                os.rmdir(kept)
            log.warning("moved_aside", ccache=self._path, kept=kept)
        os.rename(self._stem + NEW, self._path)

    def _open(self) -> None:
        folder, name = os.path.split(self._path)
        while True:
            self._stem = os.path.join(folder, f".{name}.{secrets.token_hex(8)}")
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._fd = os.open(self._stem + NEW, flags, 0o600)
            with suppress(OSError):  # without file locks, leftovers are never removed
                fcntl.flock(self._fd, fcntl.LOCK_EX)
            if os.path.lexists(self._stem + NEW):  # st_nlink is not reliable everywhere
                break
            os.close(self._fd)  # another process swept it before we held the lock
            self._fd = -1
        self._take_group()
        self.group = os.fstat(self._fd).st_gid
        os.fchmod(self._fd, self._mode)  # after the group: chown clears mode bits
        write_all(self._fd, bytes(ROOM_BYTES))

    def _take_group(self) -> None:
        """
        Set the file's group to its folder's group, if the system allows it.

        An EFS access point maps ids and refuses, and so does the kernel for a group not ours.
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
        Remove the files that killed processes left beside this ccache.
        """
        folder, name = os.path.split(self._path)
        for left in glob.glob(os.path.join(glob.escape(folder), f".{glob.escape(name)}.*{NEW}")):
            with suppress(OSError), open(_open_for_lock(left), "rb") as file:
                # Raises if the file is in use or the file system has no locks: the file stays.
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


def _is_keytab(path: str) -> bool:
    try:
        return bool(parse_keytab(read_file(path, SIZE_LIMIT_BYTES)))
    except (OSError, EOFError, ValueError):
        return False


def _open_for_lock(path: str) -> int:
    """
    Open a leftover for locking: NFS needs write access, another uid's file may be read-only.
    """
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(path, os.O_RDWR | flags)
    except PermissionError:
        return os.open(path, os.O_RDONLY | flags)


def explain_os_error(error: OSError, path: str) -> SidecarError:
    """
    Return the failure for a file system error at a ccache.
    """
    folder = os.path.dirname(path)
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return SidecarError(
                "ccache_full",
                f"cannot write to {folder}: {error.strerror}",
                "Enlarge the volume (sizeLimit). The published ccache is intact.",
            )
        case errno.EPERM:
            return SidecarError(
                "ccache_denied",
                f"cannot replace {path} as uid {os.getuid()}: {error.strerror}",
                "Another uid owns the ccache, and its folder has the sticky bit: remove that bit "
                "(chmod -t; mode 2770 is right for several uids).",
            )
        case errno.EACCES | errno.EROFS:
            return SidecarError(
                "ccache_denied",
                f"cannot write {path} as uid {os.getuid()} with group {os.getgid()}: "
                f"{error.strerror}",
                "Set KERBEROS_CCACHE to a path on a volume that this container can write: an "
                "emptyDir with the pod's fsGroup. A Secret's folder is always read-only.",
            )
        case errno.ENOENT | errno.ENOTDIR:
            return SidecarError(
                "ccache_missing",
                f"the folder {folder} does not exist",
                "Mount the volume for the ccache there, or correct KERBEROS_CCACHE.",
            )
    return SidecarError("ccache_failed", f"cannot write {path}: {error.strerror}")
