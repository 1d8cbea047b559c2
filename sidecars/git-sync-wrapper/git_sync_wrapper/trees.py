"""
Folders of files: list them, compare them, and build one from links to others.

No link is followed, and folders are walked through open ones: others may write to the volume, and a
path may be longer than the kernel accepts.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import stat
import zlib
from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import NamedTuple, TypeAlias

from sidecar_runtime.volume.files import FACTS_BYTES, read_file, stat_in, write_file
from sidecar_runtime.volume.snapshots import FOLDER_FLAGS, FOLDER_MODE, link_file

GIT = ".git"
FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
FLUSHED_ONE_BY_ONE = 32
LFS = b"version https://git-lfs.github.com/spec/"
LIST_BYTES = 64 << 20
"""The limit of an unpacked list, enough for half a million files; larger lists are not used."""
# The kubelet adds these rights to each file when it mounts a volume with an fsGroup, and a setgid
# bit to each folder: kubernetes/kubernetes, pkg/volume/volume_linux.go.
GROUP_RIGHTS = 0o660


class Row(NamedTuple):
    """
    A file, symlink or folder: ``st_mode``, and of all but folders what changes with the content.
    """

    mode: int
    inode: int = 0
    size_bytes: int = 0
    mtime_ns: int = 0


Rows: TypeAlias = dict[str, Row]


def walk(top: int) -> Iterator[tuple[str, int, list[os.DirEntry[str]]]]:
    """
    Yield each folder from an open one on: its path, which is empty or ends with a slash, the open
    folder, and its entries.

    Raises:
        OSError: A folder cannot be read.
    """
    open_folders = [os.dup(top)]
    paths, inner = [""], list[Iterator[str]]()
    try:
        while True:
            entries = list(os.scandir(open_folders[-1]))
            yield paths[-1], open_folders[-1], entries
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
            inner.append(iter(names))
            while (name := next(inner[-1], None)) is None:
                os.close(open_folders.pop())
                paths.pop()
                inner.pop()
                if not inner:
                    return
            open_folders.append(os.open(name, FOLDER_FLAGS, dir_fd=open_folders[-1]))
            paths.append(f"{paths[-1]}{name}/")
    finally:
        for folder in open_folders:
            os.close(folder)


# --- what is there


def rows_of(top: int) -> Rows:
    """
    List everything in an open folder but git's own files.

    Raises:
        OSError: A folder cannot be read.
    """
    rows = {"": Row(os.fstat(top).st_mode)}
    for path, folder, entries in walk(top):
        for entry in entries:
            if entry.name != GIT and (found := stat_in(entry.name, folder)):
                rows[path + entry.name] = _row(found)
    return rows


def _row(found: os.stat_result) -> Row:
    if stat.S_ISDIR(found.st_mode):
        return Row(found.st_mode)
    return Row(found.st_mode, found.st_ino, found.st_size, found.st_mtime_ns)


def damaged(rows: Rows, top: int) -> list[str]:
    """
    Return what is missing or not as it was in an open folder. More files and more rights are no
    damage: a mount with an fsGroup adds rights.
    """
    try:
        now = rows_of(top)
    except OSError:  # a folder that was closed
        now = {}
    return sorted(path or "." for path, row in rows.items() if not _is_same(row, now.get(path)))


def _is_same(row: Row, now: Row | None) -> bool:
    return (
        now is not None
        and stat.S_IFMT(row.mode) == stat.S_IFMT(now.mode)
        and not stat.S_IMODE(row.mode) & ~now.mode
        and row[1:] == now[1:]
    )


def write_rows(rows: Rows, name: str, folder: int, *, fsync: bool) -> None:
    """
    Write a list into an open folder.

    Raises:
        OSError: It cannot be written.
    """
    packed = zlib.compress(json.dumps(rows).encode(), 1)  # every kept commit has one
    write_file(name, packed, 0o664, fsync=fsync, dir_fd=folder)


def read_rows(name: str, folder: int) -> Rows | None:
    """
    Return a list; None if there is none, or if it is invalid: whoever can write to the volume can
    write it, but its paths and numbers are only compared.
    """
    try:
        unpacked = zlib.decompressobj().decompress(
            read_file(name, LIST_BYTES, dir_fd=folder), LIST_BYTES
        )
        rows = {path: Row(*row) for path, row in json.loads(unpacked).items()}
        return rows if all(type(n) is int for row in rows.values() for n in row) else None
    except (OSError, ValueError, RecursionError, TypeError, AttributeError, zlib.error):
        return None


def sizes_of(rows: Rows) -> dict[int, int]:
    """
    Return the bytes of each inode.
    """
    return {row.inode: row.size_bytes for row in rows.values() if row.inode}


# --- a new one


def build(checkout: int, new: int, shown: int | None, further: str) -> list[str]:
    """
    Fill an open, empty folder with links: to the file that is shown if it is equal, so that it
    keeps its times and needs no space, or to that of the checkout.

    Args:
        further: A folder that leads from the new folder's place to the checkout's, for the pointers
            to git's repository.

    Returns:
        The files that are not the shown ones.

    Raises:
        OSError: Something cannot be read, or the disk is full.
    """
    changed = []
    for path, folder, entries in walk(checkout):
        for entry in entries:
            name = path + entry.name
            if entry.is_dir(follow_symlinks=False):
                os.mkdir(name, FOLDER_MODE, dir_fd=new)
            elif entry.name == GIT:
                pointer = read_file(GIT, FACTS_BYTES, dir_fd=folder)
                pointer = pointer.replace(b"../.git/", f"../{further}/.git/".encode(), 1)
                write_file(name, pointer, 0o644, fsync=False, dir_fd=new)
            elif shown is not None and _is_equal(entry.name, folder, name, shown):
                link_file(name, shown, name, new)
            else:
                link_file(entry.name, folder, name, new)
                changed.append(name)
    return sorted(changed)


def _is_equal(name: str, folder: int, path: str, shown: int) -> bool:
    """
    Whether a file of the checkout is equal to that at the same path of what is shown. Equal blobs
    may be checked out differently (`.gitattributes`), so git cannot tell.
    """
    mine, theirs = stat_in(name, folder), stat_in(path, shown)
    if mine is None or theirs is None or mine.st_size != theirs.st_size:
        return False
    modes = {mine.st_mode, mine.st_mode | GROUP_RIGHTS}
    if theirs.st_mode not in modes:
        return False
    try:
        if stat.S_ISLNK(mine.st_mode):
            return os.readlink(name, dir_fd=folder) == os.readlink(path, dir_fd=shown)
        return _digest(name, folder) == _digest(path, shown)
    except OSError:  # a bad disk block, or a file that was closed
        return False


def _digest(name: str, folder: int) -> bytes:
    with open(os.open(name, FILE_FLAGS, dir_fd=folder), "rb") as file:
        return hashlib.file_digest(file, "blake2b").digest()


def lfs_pointers(top: int, rows: Rows) -> list[str]:
    """
    Return the files that are pointers of Git LFS instead of their content.

    Source: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
    """
    found = []
    for path, row in rows.items():
        if stat.S_ISREG(row.mode) and 100 < row.size_bytes < 200:
            with suppress(OSError):
                fd = os.open(path, FILE_FLAGS, dir_fd=top)
                try:
                    if os.read(fd, len(LFS)) == LFS:
                        found.append(path)
                finally:
                    os.close(fd)
    return sorted(found)


def links(rows: Rows) -> list[str]:
    """
    Return all symlinks.
    """
    return sorted(path for path, row in rows.items() if stat.S_ISLNK(row.mode))


def flush(top: int, rows: Rows, changed: Collection[str]) -> None:
    """
    Flush new files and all folders of an open folder to disk.

    Many would take seconds one by one: then the whole file system is flushed at once.

    Raises:
        OSError: The disk fails.
    """
    folders = [path for path, row in rows.items() if stat.S_ISDIR(row.mode)]
    files = [path for path in changed if stat.S_ISREG(rows[path].mode)] if changed else []
    if len(folders) + len(files) > FLUSHED_ONE_BY_ONE:
        if ctypes.CDLL(None, use_errno=True).syncfs(top) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return
    for path in (*files, *folders):
        fd = os.open(path or ".", FILE_FLAGS, dir_fd=top)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def exchange(one: str, other: str, folder: int) -> bool:
    """
    Exchange two folders in one step, by renameat2(2); return False if the file system cannot.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.renameat2(folder, os.fsencode(one), folder, os.fsencode(other), 2) == 0)
