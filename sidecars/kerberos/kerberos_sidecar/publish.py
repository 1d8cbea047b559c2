"""
Publishes a ccache, and reads the published one: a private file beside it is renamed over it.

These files may exist beside a ccache ``NAME``:

- ``.NAME.<random>.new``, the file to be renamed. Its writer holds a ``flock`` on it, which marks
  what has the same random part as in use. Names are random, so writers never wait for each other.
- ``.NAME.<random>.krb5`` and ``.krb5.<random>``, written by libkrb5.
- ``.NAME.<random>.kept``, a folder or a keytab that was at the ccache's path. It stays, unless it
  is an empty folder.
- ``.NAME.refused``: which keys the KDC refused, and when.

A killed process leaves the first ones unlocked; the next :class:`Staging` of any process removes
them.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import json
import os
import secrets
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from threading import Lock
from typing import Self

from kerberos_sidecar.ccache import SIZE_LIMIT_BYTES, read_ticket
from kerberos_sidecar.due import Found
from kerberos_sidecar.keytab import parse_keytab
from kerberos_sidecar.principal import Principal
from kerberos_sidecar.reasons import failure
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.files import read_file, write_all, write_file

# Reserved before the KDC is asked, so that a full volume costs no request.
ROOM_BYTES = 4096

NEW, SCRATCH, ASIDE = ".new", ".krb5", ".kept"
REMEMBERED = 8

log = get_logger("ccache")


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
            is_closed = isinstance(error, PermissionError)
            problem = f"cannot be read ({error.strerror})"
            return Found(None, found.st_mtime, problem, holder if is_closed else "")
        except ValueError as error:
            return Found(None, found.st_mtime, str(error))
        mode, problem = stat.S_IMODE(found.st_mode), ""
        if self._mode & ~mode:
            problem = f"has mode {mode:04o} but needs at least {self._mode:04o}"
        elif not (mode & stat.S_IROTH or not self._mode & stat.S_IRGRP):
            if found.st_gid not in (group, self.group):
                problem = f"has group {found.st_gid}, not its folder's group {group}"
        return Found(ticket, found.st_mtime, problem, holder if problem else "")


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

    @property
    def scratch(self) -> str:
        """
        A path where libkrb5 may write; what it leaves there goes with this file.
        """
        return self._stem + SCRATCH

    def __enter__(self) -> Self:
        try:
            _sweep(self._path)
            self._open()
        except OSError as error:
            self._discard()
            raise explain_os_error(error, self._path) from error
        mode = stat.S_IMODE(os.fstat(self._fd).st_mode)
        if self._mode & ~mode:  # as on CIFS; consumers could not read the ccache
            self._discard()
            raise failure(
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
        group = os.stat(folder).st_gid
        with suppress(OSError):  # an EFS access point refuses, and the kernel if it is not ours
            os.fchown(self._fd, -1, group)
        self.group = os.fstat(self._fd).st_gid
        os.fchmod(self._fd, self._mode)  # after the group: chown clears mode bits
        write_all(self._fd, bytes(ROOM_BYTES))

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
    for left in glob.glob(os.path.join(folder, f".{name}.*{NEW}")):
        with suppress(OSError), open(_open_for_lock(left), "rb") as file:
            # Raises if the file is in use or the file system has no locks: the file stays.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(left.removesuffix(NEW))
            log.info("leftover_removed", path=left)


def _remove(stem: str) -> None:
    """
    Remove what libkrb5 wrote, and at last the file that marks it as in use.
    """
    for path in [*glob.glob(f"{glob.escape(stem)}{SCRATCH}*"), stem + NEW]:
        with suppress(OSError):
            os.unlink(path)


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
    folder, who = os.path.dirname(path), f"uid {os.getuid()} with group {os.getgid()}"
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return failure("ccache_full", f"cannot write to {folder}: {error.strerror}")
        case errno.EPERM:
            return failure(
                "ccache_denied",
                f"cannot replace {path} as {who}: {error.strerror}",
                "Another uid owns the ccache, and its folder has the sticky bit: remove that bit "
                "(chmod -t; mode 2770 is right for several uids).",
            )
        case errno.EACCES | errno.EROFS:
            return failure("ccache_denied", f"cannot write {path} as {who}: {error.strerror}")
        case errno.ENOENT | errno.ENOTDIR:
            return failure("ccache_missing", f"the folder {folder} does not exist")
    return failure("ccache_failed", f"cannot write {path}: {error.strerror}")


class Refused:
    """
    When the KDC refused which keys, remembered beside the ccaches: a restart, and the command
    ``check``, count as much as the daemon. Consumers may be able to write these files, so invalid
    content is ignored.
    """

    def __init__(self, ccaches: Iterable[str]) -> None:
        parts = map(os.path.split, ccaches)
        self._paths = [os.path.join(folder, f".{name}.refused") for folder, name in parts]
        self._known: dict[str, float] = {}

    def at(self, keys: str) -> float | None:
        """
        Return the Unix time at which these keys were refused last; ``None`` if they never were.
        """
        return self._merged().get(keys)

    def note(self, keys: str, now: float) -> None:
        """
        Remember that the KDC has refused these keys.
        """
        self._write(self._merged() | {keys: now})

    def clear(self, principal: Principal) -> None:
        """
        Forget the keys of a principal, because the KDC accepted one and so counts from 0.
        """
        known = self._merged()
        if any(keys.startswith(f"{principal} ") for keys in known):
            self._write({k: at for k, at in known.items() if not k.startswith(f"{principal} ")})

    def _write(self, known: Mapping[str, float]) -> None:
        self._known = dict(sorted(known.items(), key=lambda item: item[1])[-REMEMBERED:])
        for path in self._paths:
            with suppress(OSError):  # on a full volume, remembered until a restart
                if self._known:
                    write_file(path, json.dumps(self._known).encode(), 0o600, fsync=False)
                else:
                    os.unlink(path)

    def _merged(self) -> dict[str, float]:
        merged = dict(self._known)
        for path in self._paths:
            with suppress(OSError, ValueError, RecursionError, AttributeError, TypeError):
                for keys, at in json.loads(read_file(path, 1 << 16)).items():
                    merged[keys] = max(float(at), merged.get(keys, 0.0))
        return merged
