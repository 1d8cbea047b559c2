"""
Walks below the target without following a link, and opens the folders in `.s3-sync`.

A path is walked from an open folder, name by name. Changes at its end are made relative to the
folder that was opened. So a process that can write to the volume can never redirect s3-sync out of
the target.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from s3_sync.keys import DEPTH_LIMIT, RESERVED
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.snapshots import FOLDER_FLAGS, FOLDER_MODE

PATH_FLAGS = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
OLD_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
BYTECODE = "__pycache__"
# Never deleted under S3_SYNC_DELETE=all: bytecode, and the folder that mkfs creates.
SPARED = {BYTECODE, "lost+found"}
# A larger buffer would be a separate memory mapping for each of many small files.
BLOCK_BYTES = 64 << 10

log = get_logger("target")


class Blocked(Exception):
    """
    A file or folder of another owner is in the way.
    """


def open_target(path: str) -> int:
    """
    Open the target folder; create it if it is missing.

    The path itself may be a symlink, which the user chose; nothing below it may be.

    Raises:
        OSError: It cannot be created or opened.
    """
    os.makedirs(path, mode=FOLDER_MODE, exist_ok=True)
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def open_own_folder(name: str, parent: int) -> int:
    """
    Open or create a folder of s3-sync's own; a symlink or a file in its place is removed.

    Only a file in place of `.s3-sync` itself stays, because it may belong to another owner.

    Raises:
        OSError: It cannot be created or opened.
    """
    try:
        return os.open(name, FOLDER_FLAGS, dir_fd=parent)
    except FileNotFoundError:
        pass
    except OSError as error:
        is_foreign = name == RESERVED and not is_link(name, parent)
        if error.errno not in (errno.ELOOP, errno.ENOTDIR) or is_foreign:
            raise
        log.warning("own_folder_replaced", path=name)
        os.unlink(name, dir_fd=parent)
    os.mkdir(name, FOLDER_MODE, dir_fd=parent)
    return os.open(name, FOLDER_FLAGS, dir_fd=parent)


@contextmanager
def opened(name: str, parent: int | None = None) -> Iterator[int]:
    """
    Open an existing folder for reading, without following a link below an open one.

    Raises:
        OSError: It is missing, or not a folder.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (os.O_NOFOLLOW if parent else 0)
    folder = os.open(name, flags, dir_fd=parent)
    try:
        yield folder
    finally:
        os.close(folder)


@contextmanager
def walk(root: int, path: str) -> Iterator[tuple[int, str]]:
    """
    Walk to the parent folder of a path and yield it, open, with the last name.

    Raises:
        FileNotFoundError, NotADirectoryError: A folder is missing, or something else is there.
    """
    *folders, name = split(path)
    fd = root
    try:
        for folder in folders:
            inner = os.open(folder, PATH_FLAGS, dir_fd=fd)
            if fd != root:
                os.close(fd)
            fd = inner
        yield fd, name
    finally:
        if fd != root:
            os.close(fd)


def split(path: str) -> list[str]:
    """
    Return the names of a path below the target.

    Raises:
        ValueError: It leads elsewhere; a last safeguard, because such keys are refused earlier.
    """
    parts = path.split("/")
    if not {"", ".", ".."}.isdisjoint(parts):
        raise ValueError(f"not a path below the target: {path!r}")
    return parts


def is_link(name: str, folder: int) -> bool:
    """
    Whether a name in an open folder is a symlink.
    """
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def is_real_folder(folder: str, root: int, known: dict[str, bool]) -> bool:
    """
    Whether neither a folder nor any folder above it is a symlink.

    Args:
        known: Results by folder; extended by this call.

    Raises:
        OSError: A folder is missing.
    """
    if folder not in known:
        known[folder] = is_real_folder(folder.rpartition("/")[0], root, known) and stat.S_ISDIR(
            os.stat(folder, dir_fd=root, follow_symlinks=False).st_mode
        )
    return known[folder]


def foreign_files(root: int, ours: Collection[str]) -> list[str]:
    """
    Return all files and links below the open target that are not ours, except bytecode, lost+found
    and what is in folders that are too deep for our files.
    """
    found: list[str] = []
    for folder, folders, files, folder_fd in os.fwalk(dir_fd=root):
        here = os.path.normpath(folder)
        if here == ".":
            folders[:] = [name for name in folders if name != RESERVED]
        folders[:] = [name for name in folders if name not in SPARED]
        links = [name for name in folders if is_link(name, folder_fd)]
        if here.count("/") >= DEPTH_LIMIT:
            folders.clear()
        for name in [*files, *links]:
            path = os.path.normpath(os.path.join(here, name))
            # NFS renames a file to .nfs* if it is removed but still open.
            if path not in ours and not name.startswith(".nfs"):
                found.append(path)
    return found


def read_blocks(fd: int) -> Iterator[bytes]:
    """
    Yield the rest of an open file.
    """
    while block := os.read(fd, BLOCK_BYTES):
        yield block


def sync_folder(folder: int) -> None:
    """
    Flush the folder itself; reopen it, because an O_PATH descriptor cannot be flushed.
    """
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
