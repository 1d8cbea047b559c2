"""
What is in a snapshot, on record: to tell later whether it still is.

Content and mode count. The times of a file only say whether it must be read again: they change
with every new name that it gets, too, and an edit that sets the old modification time back cannot
set back the other one.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from dataclasses import astuple, dataclass
from typing import TypeAlias

from git_sync_wrapper.published.sharing import CHUNK_BYTES, FILE_FLAGS, entries, opened
from sidecar_runtime.volume.files import read_facts, stat_in, write_file


@dataclass(frozen=True, slots=True)
class Row:
    """
    What is known of one file, or symlink.

    Args:
        mode: As in stat(2), with the kind of file.
        digest: Of its content, or of where it leads.
    """

    mode: int
    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    digest: str


Contents: TypeAlias = dict[str, Row]


def take(folder: int, old: Collection[str] = (), *, fsync: bool) -> Contents:
    """
    Return what is in an open folder.

    Args:
        old: What is on disk already, where `fsync` asks for the rest to be flushed.

    Raises:
        OSError: Something cannot be read, or flushed.
    """
    return {
        path: _row(found, _digest(name, inside, found, fsync=fsync and path not in old))
        for path, name, inside, found in _walk(folder)
    }


def damaged(contents: Contents, folder: int) -> list[str]:
    """
    Return what is missing in an open folder, or is not what it was.

    A file of another time that is the same has a new row afterwards. What is there besides does
    not count, nor do rights that were added (`fsGroup` does that when a volume is mounted).
    """
    found_whole = set()
    for path, name, inside, found in _walk(folder):
        row = contents.get(path)
        if row is None:
            continue
        if row != _row(found, row.digest):
            if not _has_kept(row, name, inside, found):
                continue
            contents[path] = _row(found, row.digest)
        found_whole.add(path)
    return sorted(contents.keys() - found_whole)


def write(contents: Contents, name: str, folder: int, *, fsync: bool) -> None:
    """
    Put it on record, in an open folder.

    Raises:
        OSError: It cannot be written.
    """
    rows = {path: astuple(row) for path, row in contents.items()}
    write_file(name, json.dumps(rows).encode(), 0o664, fsync=fsync, dir_fd=folder)


def read(name: str, folder: int) -> Contents | None:
    """
    Return what is on record; None where there is nothing, or something else.
    """
    rows = read_facts(name, folder)
    try:
        return {path: Row(*row) for path, row in rows.items()} or None
    except TypeError:
        return None


def _walk(folder: int, prefix: str = "") -> Iterator[tuple[str, str, int, os.stat_result]]:
    """
    Yield each file: its path, its name in an open folder, and what stat says of it.

    No symlink is followed; a folder that cannot be opened has no files.
    """
    for name, is_folder in entries(folder):
        if not is_folder:
            if found := stat_in(name, folder):
                yield prefix + name, name, folder, found
            continue
        with ExitStack() as stack:
            try:
                inner = stack.enter_context(opened(name, folder))
            except OSError:
                continue
            yield from _walk(inner, f"{prefix}{name}/")


def _row(found: os.stat_result, digest: str) -> Row:
    return Row(found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns, digest)


def _has_kept(row: Row, name: str, folder: int, found: os.stat_result) -> bool:
    """
    Whether a file is of the same kind, has all rights that it had, and the same content.
    """
    if stat.S_IFMT(row.mode) != stat.S_IFMT(found.st_mode) or row.mode & ~found.st_mode:
        return False
    if row.size_bytes != found.st_size:
        return False
    try:
        return row.digest == _digest(name, folder, found, fsync=False)
    except OSError:
        return False


def _digest(name: str, folder: int, found: os.stat_result, *, fsync: bool) -> str:
    digest = hashlib.blake2b(digest_size=16)
    if stat.S_ISLNK(found.st_mode):
        digest.update(os.fsencode(os.readlink(name, dir_fd=folder)))
    elif stat.S_ISREG(found.st_mode):
        with opened(name, folder, FILE_FLAGS) as file:
            while chunk := os.read(file, CHUNK_BYTES):
                digest.update(chunk)
            if fsync:
                os.fsync(file)
    return digest.hexdigest()
