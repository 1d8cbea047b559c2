"""
What is in a snapshot, on record: to tell later whether it still is.

Content and mode count. The times of a file only say whether it must be read again: they change
with every new name that it gets, too, and an edit that sets the old modification time back cannot
set back the other one.
"""

from __future__ import annotations

import ctypes
import json
import os
import stat
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import groupby
from typing import NamedTuple, TypeAlias

from git_sync_wrapper.published.sharing import FILE_FLAGS, blocks_of
from git_sync_wrapper.published.tree import opened, walk
from sidecar_runtime.volume.files import read_file, stat_in, write_file
from sidecar_runtime.volume.trees import remove_tree

FLUSHED_ONE_BY_ONE = 32
LIST_BYTES = 64 << 20
"""What a list unpacks to at most, that of half a million files: none larger is written or read."""


class Row(NamedTuple):
    """
    What is known of one file, or symlink.

    `mode` is as in stat(2), with the kind of file; `digest` of its content, or of where it leads;
    empty where nobody has read it yet.
    """

    mode: int
    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    digest: str


Contents: TypeAlias = dict[str, Row]


def take(folder: int, digests: Mapping[str, str], *, reads: bool = True) -> Contents:
    """
    Return what is in an open folder.

    Args:
        digests: Of the content of some files, where it is known; empty where it is not.
        reads: Whether the others are read for theirs.

    Raises:
        OSError: Something cannot be read.
    """
    rows = {}
    for path, entry, inside in walk(folder):
        if found := stat_in(entry.name, inside):
            digest = digests.get(path, "")
            if reads and not digest:
                digest = _digest(entry.name, inside, found.st_mode)
            rows[path] = _row(found, digest)
    return rows


def digest_of(path: str, found: os.stat_result, contents: Contents) -> str:
    """
    Return the digest of a file that is as it was on record; empty for others.
    """
    row = contents.get(path)
    return row.digest if row is not None and row == _row(found, row.digest) else ""


def flush(contents: Contents, old: Collection[str], folder: int) -> None:
    """
    Put what is in an open folder on disk, and its names.

    Many files take seconds one by one: there the whole file system is flushed at once.

    Args:
        old: The files that are on disk already.

    Raises:
        OSError: The disk fails.
    """
    new = [path for path, row in contents.items() if path not in old and stat.S_ISREG(row.mode)]
    folders = {"."}
    for path in contents:
        while path := os.path.dirname(path):
            folders.add(path)
    if len(new) + len(folders) > FLUSHED_ONE_BY_ONE:
        if ctypes.CDLL(None, use_errno=True).syncfs(folder) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return
    for path in (*new, *folders):
        with opened(path, folder, FILE_FLAGS) as file:
            os.fsync(file)


def damaged(contents: Contents, folder: int, *, reads: bool = True) -> list[str]:
    """
    Return what is missing in an open folder, or is not what it was.

    A file of another time that is the same has a new row afterwards. What is there besides does
    not count, nor do rights that were added (`fsGroup` does that when a volume is mounted).

    Args:
        reads: Whether what nobody has read yet is read, while it is known to be what it was.
    """
    lost = []
    for above, rows in groupby(contents.items(), lambda item: item[0].rpartition("/")[0]):
        start = len(above) + 1 if above else 0
        with _inside(above, folder) as inside:
            for path, row in rows:
                name = path[start:]
                mode, size_bytes, mtime_ns, ctime_ns, digest = row
                try:
                    if reads and not digest:  # before the look that tells that it was right
                        digest = _digest(name, inside, mode)
                    found = os.stat(name, dir_fd=inside, follow_symlinks=False)
                    is_same = (
                        found.st_ctime_ns == ctime_ns
                        and found.st_mtime_ns == mtime_ns
                        and found.st_size == size_bytes
                        and found.st_mode == mode
                    )
                    if is_same and digest is row.digest:
                        continue
                    if is_same or _has_kept(row, name, inside, found):
                        contents[path] = _row(found, digest)
                    else:
                        lost.append(path)
                except (OSError, ValueError):  # or a name that no file has: others may write lists
                    lost.append(path)
    return sorted(lost)


@contextmanager
def _inside(path: str, folder: int) -> Iterator[int]:
    """
    Open a folder below an open one, through no symlink; -1 where it cannot be opened.
    """
    with ExitStack() as stack:
        inside = folder
        try:
            for part in path.split("/") if path else ():
                if part in ("", ".", ".."):
                    raise ValueError(f"not a folder of ours: {path!r}")
                inside = stack.enter_context(opened(part, inside))
        except (OSError, ValueError):
            inside = -1
        yield inside


def write(contents: Contents, name: str, folder: int, *, fsync: bool) -> bool:
    """
    Put it on record, in an open folder; False where it is too long, and nothing is on record.

    Raises:
        OSError: It cannot be written.
    """
    text = json.dumps(contents).encode()
    if len(text) > LIST_BYTES:
        remove_tree(name, folder)
        return False
    packed = zlib.compress(text, 1)  # each commit that is kept has one
    write_file(name, packed, 0o664, fsync=fsync, dir_fd=folder)
    return True


def read(name: str, folder: int) -> Contents | None:
    """
    Return what is on record; None where there is nothing, or something else.
    """
    try:
        packed = read_file(name, LIST_BYTES, dir_fd=folder)
        unpacker = zlib.decompressobj()
        rows = json.loads(unpacker.decompress(packed, LIST_BYTES))
        contents = {path: Row(*row) for path, row in rows.items()}
        # Whoever can write to the volume may have written it; the rest is only compared.
        is_sound = all(type(row.mode) is int and row.mode >> 16 == 0 for row in contents.values())
        return contents if contents and is_sound else None
    except (OSError, ValueError, RecursionError, TypeError, AttributeError, zlib.error):
        return None


def _row(found: os.stat_result, digest: str) -> Row:
    return Row(found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns, digest)


def _has_kept(row: Row, name: str, folder: int, found: os.stat_result) -> bool:
    """
    Whether a file is of the same kind, has all rights that it had, and the same content.
    """
    if stat.S_IFMT(row.mode) != stat.S_IFMT(found.st_mode) or row.mode & ~found.st_mode:
        return False
    return row.size_bytes == found.st_size and row.digest == _digest(name, folder, found.st_mode)


def _digest(name: str, folder: int, mode: int) -> str:
    import hashlib  # noqa: PLC0415 - 2 ms, and a one-shot reads nothing

    digest = hashlib.blake2b(digest_size=16)
    if stat.S_ISLNK(mode):
        digest.update(os.fsencode(os.readlink(name, dir_fd=folder)))
    elif stat.S_ISREG(mode):
        for block in blocks_of(name, folder):
            digest.update(block)
    return digest.hexdigest()
