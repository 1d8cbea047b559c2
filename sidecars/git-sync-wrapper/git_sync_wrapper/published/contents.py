"""
The list of a snapshot's files, which is recorded to detect damage later.

Content and mode are compared. The times of a file only decide whether it must be read again: a new
hard link changes the ctime as well, and an edit can reset the modification time, but not the ctime.
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

from git_sync_wrapper.published.sharing import FILE_FLAGS, blocks_of, rights_to_read
from git_sync_wrapper.published.tree import opened, walk
from sidecar_runtime.volume.files import read_file, stat_in, write_file
from sidecar_runtime.volume.trees import remove_tree

FLUSHED_ONE_BY_ONE = 32
LIST_BYTES = 64 << 20
"""The limit of an unpacked list, enough for half a million files; larger lists are not used."""
DIGEST_CHARACTERS = 32
# Forbidden in paths: a list may be forged, and must not lead out of its snapshot.
_NO_NAMES = frozenset(("", ".", ".."))


class Row(NamedTuple):
    """
    The recorded state of a file or symlink.

    `mode` is as in stat(2), including the kind of file. `digest` is of the content, or of the
    target of a symlink; empty until the file has been read.
    """

    mode: int
    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    digest: str


Contents: TypeAlias = dict[str, Row]


def take(folder: int, digests: Mapping[str, str], *, reads: bool = True) -> Contents:
    """
    Return the list of all files in an open folder.

    Args:
        digests: Known digests of files; an empty text if unknown.
        reads: Whether other files are read to determine their digests.

    Raises:
        OSError: A file or folder cannot be read.
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
    Return the recorded digest of a file whose state is unchanged; empty for other files.
    """
    row = contents.get(path)
    return row.digest if row is not None and row == _row(found, row.digest) else ""


def flush(contents: Contents, old: Collection[str], folder: int) -> None:
    """
    Flush the files and folders in an open folder to disk.

    Many files would take seconds one by one: then the whole file system is flushed at once.

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


def damaged(contents: Contents, folder: int, store: int, *, reads: bool = True) -> list[str] | None:
    """
    Return the missing or damaged files of an open folder, and those in folders that were closed;
    None if that cannot be determined: a file without a digest has more rights than recorded, or the
    same mtime and another ctime.

    An intact file with other times has a new row afterwards. Additional files are ignored, and so
    are added rights (`fsGroup` adds them when a volume is mounted).

    Args:
        reads: Whether files without a digest are read, as long as they are known to be intact.
    """
    lost: list[str] = []
    is_known = True
    rights = rights_to_read(store)
    if rights & ~os.fstat(folder).st_mode:
        folder = -1
    for above, rows in groupby(contents.items(), lambda item: item[0].rpartition("/")[0]):
        start = len(above) + 1 if above else 0
        with _inside(above, folder, rights) as inside:
            for path, row in rows:
                name = path[start:]
                mode, size_bytes, mtime_ns, ctime_ns, digest = row
                try:
                    if reads and not digest:  # read first: the stat after it proves it was intact
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
                        is_known = False  # after a mount with fsGroup, or a new hard link
                    else:
                        lost.append(path)
                except (OSError, ValueError):  # ValueError: an invalid name in a forged list
                    lost.append(path)
    return sorted(lost) if lost or is_known else None


@contextmanager
def _inside(path: str, folder: int, rights: int) -> Iterator[int]:
    """
    Open a folder below an open one, without following symlinks; -1 if it cannot be opened, or a
    folder on the way lacks rights.
    """
    with ExitStack() as stack:
        inside = folder
        try:
            for part in path.split("/") if path else ():
                inside = stack.enter_context(opened(part, inside))
                if rights & ~os.fstat(inside).st_mode:
                    raise PermissionError
        except (OSError, ValueError):
            inside = -1
        yield inside


def write(contents: Contents, name: str, folder: int, *, fsync: bool) -> bool:
    """
    Write the list into an open folder. If it is too long, remove any old list and return False.

    Raises:
        OSError: It cannot be written.
    """
    text = json.dumps(contents).encode()
    unread = sum(not row.digest for row in contents.values())  # an inspection adds their digests
    if len(text) + unread * DIGEST_CHARACTERS > LIST_BYTES:
        remove_tree(name, folder)
        return False
    packed = zlib.compress(text, 1)  # level 1: every kept commit has a list
    write_file(name, packed, 0o664, fsync=fsync, dir_fd=folder)
    return True


def read(name: str, folder: int) -> Contents | None:
    """
    Return the recorded list; None if it does not exist or is invalid.
    """
    try:
        packed = read_file(name, LIST_BYTES, dir_fd=folder)
        unpacker = zlib.decompressobj()
        rows = json.loads(unpacker.decompress(packed, LIST_BYTES))
        contents = {path: Row(*row) for path, row in rows.items()}
        # The list may be forged: check what is used; the other values are only compared.
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
    Whether a file has the same kind and size, and at least the recorded rights.
    """
    is_same_kind = stat.S_IFMT(row.mode) == stat.S_IFMT(found.st_mode)
    return is_same_kind and not row.mode & ~found.st_mode and row.size_bytes == found.st_size


def _has_kept(row: Row, name: str, folder: int, found: os.stat_result) -> bool:
    """
    Whether a file is the same, and its content has the recorded digest.
    """
    return _may_be(row, found) and row.digest == _digest(name, folder, found.st_mode)


def _digest(name: str, folder: int, mode: int) -> str:
    import hashlib  # noqa: PLC0415 - 2 ms, not needed by a one-shot on an empty volume

    digest = hashlib.blake2b(digest_size=DIGEST_CHARACTERS // 2)
    if stat.S_ISLNK(mode):
        digest.update(os.fsencode(os.readlink(name, dir_fd=folder)))
    elif stat.S_ISREG(mode):
        for block in blocks_of(name, folder):
            digest.update(block)
    return digest.hexdigest()
