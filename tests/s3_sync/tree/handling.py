"""Functions that fill, open and damage a target."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from s3_sync.keys import RESERVED
from s3_sync.listing.entries import Entry
from s3_sync.tree.download import Download
from s3_sync.tree.target import Target
from s3_sync.tree.volume import STAGING, Volume
from sidecar_runtime.fence import Fence

BODY = b"print('hello')\n"


def entry_of(path: str, content: bytes = BODY) -> Entry:
    return Entry(path, hashlib.md5(content).hexdigest(), len(content), "dags/")


def nothing(_: str) -> bool:
    return False


def download_of(target: Target, content: bytes = BODY) -> Download:
    download = Download("dags/key", len(content), target.staging.open)
    download.write(content)
    return download


def put(target: Target, path: str, content: bytes = BODY) -> bool:
    """Publish one file, as a cycle does."""
    entry = entry_of(path, content)
    return target.publish(path, entry, download_of(target, content), Fence(), nothing)


def staged(folder: Path) -> list[str]:
    return os.listdir(folder / RESERVED / STAGING)


def damaged(target: Target) -> set[str]:
    return target.damaged(iter(list(target.managed.files)))


@contextmanager
def opened(
    folder: Path, *, file_mode: int = 0o644, fsync: bool = False, part: str = ""
) -> Iterator[Target]:
    """Open the target as the next process does."""
    volume = Volume(str(folder), fsync=fsync)
    target = Target(volume, file_mode=file_mode, part=part)
    yield target
    target.close()
    volume.close()


def edit_file(place: Path) -> None:
    place.write_bytes(b"Print('hello')\n")
    os.utime(place, ns=(1, 1))


def link_file(place: Path) -> None:
    place.rename(place.with_suffix(".moved"))
    place.symlink_to(place.with_suffix(".moved").name)


def link_folder(place: Path) -> None:
    """Replace the folder with a link to it; the file keeps its inode and its times."""
    place.parent.rename(place.parent.with_name("moved"))
    place.parent.symlink_to("moved")


def replace_file(place: Path) -> None:
    found = place.stat()
    copy = place.with_suffix(".copy")
    copy.write_bytes(BODY)
    os.chmod(copy, 0o644)
    os.utime(copy, ns=(found.st_atime_ns, found.st_mtime_ns))
    copy.rename(place)
