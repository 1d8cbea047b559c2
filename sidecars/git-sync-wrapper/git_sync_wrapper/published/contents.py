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
DIGEST_CHARACTERS = 32
# Parts of no path: a list that others wrote must not lead out of its snapshot.
_NO_NAMES = frozenset(("", ".", ".."))


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


def damaged(contents: Contents, folder: int, *, reads: bool = True) -> list[str] | None:
    """
    Return what is missing in an open folder, or is not what it was; None where that cannot be told,
    because what nobody has read has more rights, or was changed at another time but not modified.

    A file of another time that is the same has a new row afterwards. What is there besides does
    not count, nor do rights that were added (`fsGroup` does that when a volume is mounted).

    Args:
        reads: Whether what nobody has read yet is read, while it is known to be what it was.
    """
    lost: list[str] = []
    is_known = True
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
                    elif not row.digest and found.st_mtime_ns == mtime_ns and _may_be(row, found):
                        is_known = False  # as a mount with fsGroup leaves it, or another hard link
                    else:
                        lost.append(path)
                except (OSError, ValueError):  # or a name that no file has: others may write lists
                    lost.append(path)
    return sorted(lost) if lost or is_known else None


@contextmanager
def _inside(path: str, folder: int) -> Iterator[int]:
    """
    Open a folder below an open one, through no symlink; -1 where it cannot be opened.
    """
    with ExitStack() as stack:
        inside = folder
        try:
            for part in path.split("/") if path else ():
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
    unread = sum(not row.digest for row in contents.values())  # a look puts their digests in
    if len(text) + unread * DIGEST_CHARACTERS > LIST_BYTES:
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
        is_sound = all(
            type(row.mode) is int and row.mode >> 16 == 0 and _NO_NAMES.isdisjoint(path.split("/"))
            for path, row in contents.items()
        )
        return contents if contents and is_sound else None
    except (OSError, ValueError, RecursionError, TypeError, AttributeError, zlib.error):
        return None


def _row(found: os.stat_result, digest: str) -> Row:
    return Row(found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns, digest)


def _may_be(row: Row, found: os.stat_result) -> bool:
    """
    Whether a file is of the same kind and size, and has all rights that it had.
    """
    is_same_kind = stat.S_IFMT(row.mode) == stat.S_IFMT(found.st_mode)
    return is_same_kind and not row.mode & ~found.st_mode and row.size_bytes == found.st_size


def _has_kept(row: Row, name: str, folder: int, found: os.stat_result) -> bool:
    """
    Whether a file may be the same, and has the content that was read.
    """
    return _may_be(row, found) and row.digest == _digest(name, folder, found.st_mode)


def _digest(name: str, folder: int, mode: int) -> str:
    import hashlib  # noqa: PLC0415 - 2 ms, and a one-shot on an empty volume reads nothing

    digest = hashlib.blake2b(digest_size=DIGEST_CHARACTERS // 2)
    if stat.S_ISLNK(mode):
        digest.update(os.fsencode(os.readlink(name, dir_fd=folder)))
    elif stat.S_ISREG(mode):
        for block in blocks_of(name, folder):
            digest.update(block)
    return digest.hexdigest()
