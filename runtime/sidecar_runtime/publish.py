"""
Publishing on a shared volume: one file, atomically; one publisher at a time.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import Any


def write_file(
    path: str | Path, content: bytes, mode: int, *, fsync: bool, dir_fd: int | None = None
) -> None:
    """
    Replace a file as a whole: temporary file in the same directory → rename.

    A crash half-way leaves the old file and at most one ``.<name>.new`` beside it, which the
    next call replaces. `dir_fd` makes `path` relative to an open directory.

    Raises:
        OSError: The directory is not writable, or the disk is full; the old file is untouched.
    """
    head, tail = os.path.split(os.fspath(path))
    temporary = os.path.join(head, f".{tail}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=dir_fd)
    fd = os.open(temporary, flags, mode, dir_fd=dir_fd)
    try:
        try:
            os.fchmod(fd, mode)
            write_all(fd, content)
            if fsync:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, path, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    except OSError:
        os.unlink(temporary, dir_fd=dir_fd)
        raise


def nearest_folder(path: str) -> str:
    """
    Return the folder at a path, or what there is of the way to it.
    """
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def write_all(fd: int, content: bytes) -> None:
    """
    Write all of it.

    Raises:
        OSError: The disk is full.
    """
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]


def read_file(path: str | Path, *, dir_fd: int | None = None) -> bytes:
    """
    Read a regular file; a symlink, or a pipe that would never end, is refused.

    Raises:
        OSError: It is missing, or not a regular file.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(path, flags, dir_fd=dir_fd)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
    with open(fd, "rb") as file:
        return file.read()


class TargetLock:
    """
    An exclusive ``flock`` on a file of the target, held until the process ends.

    The kernel releases it when the holder dies, however it dies. The file's content says who
    holds it; it is never removed, because removing a locked file lets two processes lock two
    files of the same name.
    """

    def __init__(self) -> None:
        self._fd: int | None = None

    def try_acquire(self, name: str, dir_fd: int) -> bool:
        """
        Try to become the holder; True if we are, also when we were before.

        A lock file that was removed or replaced under us (a wiped volume) is locked anew.

        Raises:
            OSError: The file cannot be made or opened.
        """
        if self._fd is not None and self._is_current(self._fd, name, dir_fd):
            return True
        self.release()
        fd = self._open(name, dir_fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        except OSError:
            os.close(fd)
            raise
        self._fd = fd
        holder = {"host": socket.gethostname(), "pid": os.getpid(), "since": round(time.time(), 3)}
        with suppress(OSError):  # a full disk: the lock is ours all the same
            os.ftruncate(fd, 0)
            os.pwrite(fd, json.dumps(holder).encode(), 0)
        return True

    def release(self) -> None:
        """
        Stop being the holder.
        """
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    @staticmethod
    def _open(name: str, dir_fd: int) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            return os.open(name, flags, 0o664, dir_fd=dir_fd)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
        os.unlink(name, dir_fd=dir_fd)  # a symlink is nobody's lock
        return os.open(name, flags, 0o664, dir_fd=dir_fd)

    @staticmethod
    def _is_current(fd: int, name: str, dir_fd: int) -> bool:
        try:
            there = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(os.fstat(fd), there)


def find_holder(name: str, folder: str) -> dict[str, Any]:
    """
    Return who holds a lock right now, as :func:`read_holder`; empty for nobody. Makes nothing.
    """
    try:
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return {}
    try:
        os.stat(name, dir_fd=opened, follow_symlinks=False)  # asking must not make the file
        lock = TargetLock()
        is_free = lock.try_acquire(name, opened)
        lock.release()
        return {} if is_free else read_holder(name, opened)
    except OSError:
        return {}
    finally:
        os.close(opened)


def read_holder(name: str, dir_fd: int) -> dict[str, Any]:
    """
    Return who holds the lock, as it says itself: ``host``, ``pid``, ``since`` (Unix time).

    The file may be anybody's work, so nothing else of it is passed on.
    """
    try:
        holder = json.loads(read_file(name, dir_fd=dir_fd))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(holder, dict):
        return {}
    host = str(holder.get("host", "")).encode(errors="replace").decode()[:253]
    numbers = {key: holder.get(key) for key in ("pid", "since")}
    return {"host": host} | {k: v for k, v in numbers.items() if isinstance(v, int | float)}
