"""
Replaces and reads files on a shared volume as a whole.
"""

import errno
import json
import math
import os
import stat
from contextlib import suppress
from typing import Any, BinaryIO

NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
Path = str | os.PathLike[str]

FACTS_BYTES = 1 << 20
"""Maximum size of a JSON file of facts; the largest lists a few dozen paths."""


def write_file(
    path: Path, content: bytes, mode: int, *, fsync: bool, dir_fd: int | None = None
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
    with suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=dir_fd)
    fd = os.open(temporary, NEW_FILE, mode, dir_fd=dir_fd)
    try:
        with open(fd, "wb", buffering=0):
            set_mode(fd, mode)
            write_all(fd, content)
            if fsync:
                os.fsync(fd)
        os.rename(temporary, path, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    except OSError:
        os.unlink(temporary, dir_fd=dir_fd)
        raise


def set_mode(fd: int, mode: int) -> None:
    """
    Set the mode of an open file, if the file system allows it (SMB and some FUSE file systems do
    not). Without it, a new file has the mode that it was created with, which the umask narrows.
    """
    with suppress(OSError):
        os.fchmod(fd, mode)


def stat_in(name: str, folder: int) -> os.stat_result | None:
    """
    Return the lstat result of a name in an open folder; None if it does not exist.
    """
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return None


def is_at(name: str, above: int, opened: int) -> bool:
    """
    Whether a name in an open folder still refers to the file or folder that is open.
    """
    found = stat_in(name, above)
    with suppress(OSError):  # on NFS, the open one is stale if another client removed it
        return found is not None and os.path.samestat(found, os.fstat(opened))
    return False


def nearest_folder(path: str) -> str:
    """
    Return the folder at a path, or its nearest existing parent.
    """
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def free_bytes(place: int | str) -> float:
    """
    Return the free space for this process at an open folder or a path, in bytes; infinite if the
    file system does not report it (some FUSE file systems report zero blocks in total).
    """
    found = os.statvfs(place)
    return found.f_bavail * found.f_frsize if found.f_blocks else math.inf


def free_inodes(place: int | str) -> float:
    """
    Return how many files this process can still create at an open folder or a path; infinite if the
    file system does not count them.
    """
    found = os.statvfs(place)
    return found.f_favail if found.f_files else math.inf


def write_all(fd: int, content: bytes) -> None:
    """
    Write all of the content.

    Raises:
        OSError: The disk is full.
    """
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]


def read_facts(name: str, folder: int) -> dict[str, Any]:
    """
    Read a JSON object from an open folder; empty if the file is missing or contains anything else.
    """
    try:
        facts = json.loads(read_file(name, FACTS_BYTES, dir_fd=folder))
    except (OSError, ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}


def open_file(path: Path, *, dir_fd: int | None, follow: bool = False) -> BinaryIO:
    """
    Open a regular file for reading; symlinks and other kinds of files (pipes) are refused.

    Args:
        follow: Whether the path may be a symlink, as a Secret's files are.

    Raises:
        OSError: It is missing, or not a regular file.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    fd = os.open(path, flags, dir_fd=dir_fd)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
    return open(fd, "rb")


def read_file(
    path: Path, most_bytes: int, *, dir_fd: int | None = None, follow: bool = False
) -> bytes:
    """
    Read a regular file, as in :func:`open_file`.

    Args:
        most_bytes: Larger files are refused unread: whoever can write to the volume may create
            one, and a process that runs out of memory would do so again at each start.

    Raises:
        OSError: It is missing, too large, or not a regular file.
    """
    with open_file(path, dir_fd=dir_fd, follow=follow) as file:
        size_bytes = os.fstat(file.fileno()).st_size
        if size_bytes > most_bytes:
            raise OSError(errno.EFBIG, f"it has {size_bytes} bytes", os.fspath(path))
        return file.read(most_bytes)
