"""
Publishes a ccache, and reads the published one: a private file beside it is renamed
over it.

These files may exist beside a ccache ``NAME``:

- ``.NAME.<random>.new``, the file to be renamed. Its writer holds a ``flock`` on it,
  which marks what has the same random part as in use. Names are random, so writers
  never wait for each other.
- ``.NAME.<random>.<random>.krb5`` and ``.krb5.<random>``, written by libkrb5, and
  removed before the first one becomes the ccache.
- ``.NAME.refused``: which keys the KDC refused, and when.

A killed process leaves the first ones unlocked; the next :class:`Staging` of any
process removes them.
"""

import errno
import fcntl
import glob
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from kerberos_sidecar.formats import CCACHE_LIMIT_BYTES, strip_to_tgt
from kerberos_sidecar.plan import Found
from kerberos_sidecar.reasons import failure
from kerberos_sidecar.settings import Entry
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.files import open_file, read_file, write_all

# Reserved before the KDC is asked, so that a full volume costs no request.
ROOM_BYTES = 4096

NEW = ".new"

_REASONS = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "ccache_full"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "ccache_denied"),
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR), "ccache_missing"),
    errno.EBUSY: "ccache_foreign",  # a file is mounted there
}

_KEYTAB = "a keytab"
_FOLDER = "a folder"
_KINDS = {stat.S_IFDIR: _FOLDER, stat.S_IFLNK: "a symbolic link"}
# What a file is that begins with these bytes; empty: it may be replaced. Ccaches of
# version 2, which nobody has written since 1996, begin as keytabs do:
# https://web.mit.edu/kerberos/krb5-latest/doc/formats/keytab_file_format.html
_BEGINNINGS = {
    b"\5\2": _KEYTAB,
    b"\5\3": "",
    b"\5\4": "",
    b"": "",  # as `touch` or an interrupted kinit leaves it: nothing is lost
}

log = get_logger("ccache")


def look(entry: Entry, own_group: int | None) -> Found:
    """
    Return the state of a ccache, as consumers see it now; never raises for a bad one.

    A file without the bits of the configured mode, such as a ``kinit``'s 0600, is bad.

    Args:
        own_group: The group of the files that we create there, if the system refuses
            the folder's.
    """
    try:
        found = os.stat(entry.ccache, follow_symlinks=False)
        group = os.stat(os.path.dirname(entry.ccache)).st_gid
    except OSError as error:
        return Found(problem=f"cannot be found ({error.strerror})")
    holder = f"uid {found.st_uid} with group {found.st_gid}"
    try:
        _, ticket = strip_to_tgt(read_file(entry.ccache, CCACHE_LIMIT_BYTES))
    except OSError as error:
        is_closed = isinstance(error, PermissionError)
        problem = f"cannot be read ({error.strerror})"
        return Found(None, found.st_mtime, problem, holder if is_closed else "")
    except ValueError as error:
        return Found(None, found.st_mtime, str(error))
    mode = stat.S_IMODE(found.st_mode)
    problem = ""
    is_for_group = entry.mode & stat.S_IRGRP and not mode & stat.S_IROTH
    if entry.mode & ~mode:
        problem = f"has mode {mode:04o} but needs at least {entry.mode:04o}"
    elif is_for_group and found.st_gid not in (group, own_group):
        problem = f"has group {found.st_gid}, not its folder's group {group}"
    return Found(ticket, found.st_mtime, problem, holder if problem else "")


def foreign_at(path: str) -> str:
    """
    Return what is at a path, in words, if it is not a ccache; empty if it is one,
    damaged or another principal's, or if nothing would be lost. A link is not followed.
    """
    try:
        kind = stat.S_IFMT(os.lstat(path).st_mode)
        if kind != stat.S_IFREG:
            return _KINDS.get(kind, "a pipe, socket or device")
        # The options after a mount point begin with ro or rw.
        mounts = Path("/proc/self/mountinfo").read_bytes()
        if os.fsencode(f" {os.path.realpath(path)} r") in mounts:
            return "a mount"
        with open_file(path, dir_fd=None) as file:
            return _BEGINNINGS.get(file.read(2), "a file that is not a ccache")
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"a file that cannot be read ({error.strerror})"


class Staging:
    """
    The private file for one publish; a ``with`` statement creates and removes it.

    What is at the ccache's path before this process has published there belongs to
    somebody else: it is replaced only if it is a ccache. Later it has replaced ours,
    and is replaced in turn, except a keytab and a folder, which can hold what cannot be
    made again. A restart does not know what it published: a record of that beside the
    ccache would be another file that consumers can write.

    Args:
        fence: Entered for the rename.
        has_published: Whether this process has published the ccache before.

    Attributes:
        ccache: The path to publish at.
        made: The file as the system made it: it may refuse the folder's group.

    Raises:
        SidecarError: On entering and publishing: the folder is missing, full or not
            writable; something else is at the ccache's path. On entering: the volume
            does not keep the mode.
    """

    def __init__(
        self, entry: Entry, fence: Fence, *, has_published: bool = False
    ) -> None:
        self.ccache = entry.ccache
        self._mode = entry.mode
        self.fence = fence
        self._has_published = has_published
        self._fd = -1
        self._stem = ""
        self.made: os.stat_result

    def scratch(self) -> str:
        """
        Return a path where libkrb5 may write; what it leaves there goes with this file.

        Nobody can guess it: libgssapi takes a valid ticket that is there already for
        the KDC's.
        """
        return f"{self._stem}.{secrets.token_hex(8)}.krb5"

    def __enter__(self) -> Self:
        try:
            with explained(self.ccache):
                _sweep(self.ccache)
                self._open_with_folders_group()
        except SidecarError:
            self._discard()
            raise
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
        with explained(self.ccache):
            os.lseek(self._fd, 0, os.SEEK_SET)
            write_all(self._fd, content)
            # at last: until then, its room is reserved
            os.ftruncate(self._fd, len(content))
            os.fsync(self._fd)
            with self.fence:
                self._refuse_foreign()  # it may have come during the request
                os.rename(self._stem + NEW, self.ccache)

    def _open_with_folders_group(self) -> None:
        folder, name = os.path.split(self.ccache)
        above = os.stat(folder)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        # swept before it was locked
        while not self._stem or not os.path.exists(self._stem + NEW):
            self._discard()
            self._stem = os.path.join(folder, f".{name}.{secrets.token_hex(8)}")
            self._fd = os.open(self._stem + NEW, flags, 0o600)
            with suppress(OSError):  # without file locks, leftovers are never removed
                fcntl.flock(self._fd, fcntl.LOCK_EX)
        # an EFS access point refuses, and the kernel if it is not ours
        with suppress(OSError):
            os.fchown(self._fd, -1, above.st_gid)
        os.fchmod(self._fd, self._mode)  # after the group: chown clears mode bits
        self.made = os.fstat(self._fd)
        mode = stat.S_IMODE(self.made.st_mode)
        if self._mode & ~mode:  # as on CIFS; consumers could not read the ccache
            raise OSError(
                errno.ENOTSUP,
                f"its volume gives all files mode {mode:04o}: mount it with file_mode=0640",
            )
        write_all(self._fd, bytes(ROOM_BYTES))
        self._refuse_foreign()
        if above.st_mode & stat.S_ISVTX and above.st_uid != os.geteuid():
            # Asks without a write whether we may replace the file: as O_NOATIME, that
            # takes its owner or CAP_FOWNER.
            flags = os.O_NOATIME | os.O_NOFOLLOW | os.O_NONBLOCK
            with suppress(FileNotFoundError):
                os.close(os.open(self.ccache, flags))

    def _refuse_foreign(self) -> None:
        """
        Raises:
            SidecarError: ``ccache_foreign``: what is at the path must not be replaced.
        """
        foreign = foreign_at(self.ccache)
        if foreign and (foreign in (_KEYTAB, _FOLDER) or not self._has_published):
            raise failure(
                "ccache_foreign",
                f"{self.ccache} is {foreign}, which is not overwritten",
            )

    def _discard(self) -> None:
        if self._stem:
            _remove(self._stem)
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _sweep(ccache: str) -> None:
    """
    Remove the files that killed processes left beside a ccache.
    """
    folder, name = (glob.escape(part) for part in os.path.split(ccache))
    # Not those of another ccache, such as NAME.etl, nor its memory of refusals.
    its = f".{name}.{'[0-9a-f]' * 16}{NEW}"
    for left in glob.glob(os.path.join(folder, its)):
        # NFS locks for writing only. Raises if the file is in use, or is another uid's,
        # or the file system has no locks: it stays.
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK
        with suppress(OSError), open(os.open(left, flags), "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(left.removesuffix(NEW))
            log.info("leftover_removed", path=left)


def _remove(stem: str) -> None:
    """
    Remove what libkrb5 wrote, and at last the file that marks it as in use.
    """
    for path in sorted(glob.glob(f"{glob.escape(stem)}.*")):
        with suppress(OSError):
            os.unlink(path)


@contextmanager
def explained(ccache: str) -> Iterator[None]:
    """
    Turn failures of the file system into errors with a reason.
    """
    try:
        yield
    except OSError as error:
        raise failure(
            _REASONS.get(error.errno or 0, "ccache_failed"),
            f"cannot write {ccache} as uid {os.getuid()} with group {os.getgid()}: "
            f"{error.strerror}",
        ) from error
