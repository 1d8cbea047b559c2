"""
The bundle of a release: an ordinary zip of independently compressed files.

Its bytes depend only on the content and the version of zlib: sorted, one date, one level.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from stat import S_IFREG
from typing import BinaryIO

from s3_sync.release.rows import HEADER_BYTES, RATIO_LIMIT, File

LEVEL = 6
UNIX = 3  # "version made by", for the modes
EPOCH = (1980, 1, 1, 0, 0, 0)  # the oldest date that a zip can contain


@dataclass(frozen=True, slots=True)
class FileContent:
    """
    One file for the bundle.
    """

    path: str
    data: bytes
    is_executable: bool = False


def write_bundle(contents: Iterable[FileContent], out: BinaryIO) -> list[File]:
    """
    Write a zip; return the rows of the manifest.

    Args:
        contents: The files, sorted by path.
        out: An empty, seekable file.

    Raises:
        OSError: It cannot be written; the file is then unusable.
    """
    with zipfile.ZipFile(out, "w") as bundle:
        return [_add(content, bundle) for content in contents]


def _add(content: FileContent, bundle: zipfile.ZipFile) -> File:
    data = content.data
    mode = 0o755 if content.is_executable else 0o644
    info = zipfile.ZipInfo(content.path, EPOCH)
    info.create_system = UNIX
    info.external_attr = (S_IFREG | mode) << 16
    info.compress_type = zipfile.ZIP_DEFLATED if _is_worth(data) else zipfile.ZIP_STORED
    bundle.writestr(info, data, compresslevel=LEVEL)
    return File(
        content.path,
        info.compress_size,
        len(data),
        hashlib.sha256(data).hexdigest(),
        f"{mode:04o}",
        info.header_offset + HEADER_BYTES + len(content.path.encode()),
    )


def _is_worth(data: bytes) -> bool:
    """
    Whether deflating makes it smaller, but not so much that a reader would refuse it.
    """
    deflated_bytes = len(zlib.compress(data, LEVEL, -zlib.MAX_WBITS))
    return len(data) <= deflated_bytes * RATIO_LIMIT and deflated_bytes < len(data)
