"""
The bundle of a release: an ordinary zip of independently compressed files.

Its bytes depend only on the content and the version of zlib: sorted, one date, one level. A reader
uses neither its directory nor its headers: the manifest gives the position of each file.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Callable, Iterable
from stat import S_IFREG
from typing import BinaryIO, NamedTuple

from s3_sync.release.format import HEADER_BYTES, RATIO_LIMIT, File
from s3_sync.s3.refusals import ObjectError

LEVEL = 6
UNIX = 3  # "version made by", for the modes
EPOCH = (1980, 1, 1, 0, 0, 0)  # the oldest date that a zip can contain
# The most to inflate at a time.
BLOCK_BYTES = 1 << 20


class FileContent(NamedTuple):
    """
    One file, in memory.
    """

    path: str
    data: bytes
    is_executable: bool = False


def write_bundle(contents: Iterable[FileContent], out: BinaryIO) -> dict[str, File]:
    """
    Write a zip; return its files by path.

    Args:
        contents: The files, sorted by path.
        out: An empty, seekable file.

    Raises:
        OSError: It cannot be written; the file is then unusable.
    """
    with zipfile.ZipFile(out, "w") as bundle:
        return {content.path: _add(content, bundle) for content in contents}


def _add(content: FileContent, bundle: zipfile.ZipFile) -> File:
    path, data, is_executable = content
    info = zipfile.ZipInfo(path, EPOCH)
    info.create_system = UNIX
    info.external_attr = (S_IFREG | (0o755 if is_executable else 0o644)) << 16
    # Stored if deflating makes it no smaller, or so small that a reader would refuse it.
    deflated_bytes = len(zlib.compress(data, LEVEL, -zlib.MAX_WBITS))
    is_worth = deflated_bytes < len(data) <= deflated_bytes * RATIO_LIMIT
    info.compress_type = zipfile.ZIP_DEFLATED if is_worth else zipfile.ZIP_STORED
    bundle.writestr(info, data, compresslevel=LEVEL)
    offset = info.header_offset + HEADER_BYTES + len(path.encode())
    sha256 = hashlib.sha256(data).hexdigest()
    return File(path, sha256, len(data), is_executable, info.compress_size, offset)


def bundle_corrupt(message: str) -> ObjectError:
    """
    Return the error for a bundle that does not match its manifest.
    """
    return ObjectError(
        "bundle_corrupt",
        message,
        "Nothing of this release was published; the published files stay. If the error persists, "
        "the bundle was altered in the bucket: publish the release again with --force, or roll "
        "back.",
    )


class IncomingContent:
    """
    Inflates and verifies one file of a bundle while its stored bytes arrive.

    Args:
        take: Receives the content, block by block; verified only when :meth:`finish` returns.
    """

    def __init__(self, file: File, take: Callable[[bytes], object]) -> None:
        self._file = file
        self._give = take
        is_deflated = file.stored_bytes < file.size_bytes
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS) if is_deflated else None
        self._digest = hashlib.sha256()
        self._size_bytes = 0

    def write(self, piece: bytes) -> None:
        """
        Process the next stored bytes.

        Raises:
            ObjectError: The file does not match the manifest.
        """
        if self._inflater is None:
            self._take(piece)
            return
        try:
            while piece:
                self._take(self._inflater.decompress(piece, BLOCK_BYTES))
                piece = self._inflater.unconsumed_tail
        except zlib.error as error:
            raise self._corrupt(f"it cannot be inflated: {error}") from None

    def finish(self) -> None:
        """
        Verify that the file is complete, and nothing follows it.

        Raises:
            ObjectError: The file does not match the manifest.
        """
        if self._inflater is not None:
            self._take(self._inflater.flush())
            if not self._inflater.eof or self._inflater.unused_data:
                raise self._corrupt("its data does not end where it should")
        if self._size_bytes != self._file.size_bytes:
            raise self._corrupt(f"it has {self._size_bytes} bytes, not {self._file.size_bytes}")
        if (found := self._digest.hexdigest()) != self._file.sha256:
            raise self._corrupt(f"its SHA-256 is {found}, not {self._file.sha256}")

    def _take(self, block: bytes) -> None:
        self._size_bytes += len(block)
        if self._size_bytes > self._file.size_bytes:
            raise self._corrupt(f"it has more than {self._file.size_bytes} bytes")
        self._digest.update(block)
        self._give(block)

    def _corrupt(self, message: str) -> ObjectError:
        return bundle_corrupt(f"{self._file.path!r} in the bundle is corrupt: {message}")
