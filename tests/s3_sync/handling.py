"""Functions that fill, open and damage a folder."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from s3_sync.layout.in_place import open_in_place
from s3_sync.listing import Entry
from s3_sync.names import RESERVED
from s3_sync.tree import Tree
from s3_sync.volume import STAGING, Volume
from sidecar_runtime.fence import Fence
from sidecar_runtime.volume.files import write_all

BODY = b"print('hello')\n"


def put(folder: Tree, path: str, content: bytes = BODY) -> None:
    """Put one file into place, as a cycle does."""
    entry = Entry(path, hashlib.md5(content).hexdigest(), len(content))
    staging = folder.staging.open()
    try:
        write_all(staging.fd, content)
        folder.put(path, entry, staging, Fence())
    finally:
        folder.staging.discard(staging)


def staged(folder: Path) -> list[str]:
    return os.listdir(folder / RESERVED / STAGING)


def damaged(folder: Tree) -> set[str]:
    return folder.altered(folder.files)


def open_volume(folder: Path, *, file_mode: int = 0o644, fsync: bool = False) -> Volume:
    """Open a target as a process with the lock does."""
    volume = Volume(str(folder))
    try:
        volume.begin(file_mode, fsync=fsync)
    except BaseException:
        volume.close()
        raise
    return volume


@contextmanager
def opened(
    folder: Path, *, file_mode: int = 0o644, fsync: bool = False
) -> Iterator[Tree]:
    """Open the target as the next process does."""
    volume = open_volume(folder, file_mode=file_mode, fsync=fsync)
    target = open_in_place(volume)
    yield target
    target.close()
    volume.close()
