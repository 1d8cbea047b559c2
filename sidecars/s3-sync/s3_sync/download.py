"""
The download of one object: kept in memory if small, else in a staging file, and verified.
"""

from __future__ import annotations

import base64
import hashlib
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Protocol

from s3_sync.digest import looks_like_md5, md5_of
from s3_sync.folder.paths import BLOCK_BYTES
from s3_sync.folder.staging import Staging, StagingFolder
from s3_sync.s3.refusals import ObjectError
from sidecar_runtime.volume.files import write_all

MEMORY_BYTES = 1 << 20


class Download:
    """
    Receives the body of one object; used as a context that removes what was not put into place.

    Args:
        size_bytes: The listed size.
        folder: Where a body too big for memory goes, and at last every body.

    Attributes:
        size_bytes: How much was received.
    """

    def __init__(self, key: str, size_bytes: int, folder: StagingFolder) -> None:
        self._key = key
        self._listed_bytes = size_bytes
        self._folder = folder
        self._chunks: list[bytes] = []
        self._staging: Staging | None = None
        self.size_bytes = 0

    def __enter__(self) -> Download:
        return self

    def __exit__(self, *_: object) -> None:
        if self._staging is not None:
            self._folder.discard(self._staging)

    def restart(self) -> None:
        """
        Discard the received bytes for a new attempt.
        """
        self._chunks.clear()
        self.size_bytes = 0
        if self._staging is not None:
            os.ftruncate(self._staging.fd, 0)
            os.lseek(self._staging.fd, 0, os.SEEK_SET)

    def write(self, chunk: bytes) -> None:
        """
        Receive a piece of the body.

        Raises:
            ObjectError: The body exceeds the listed size; an endless body must not fill the disk.
            OSError: The disk is full.
        """
        self.size_bytes += len(chunk)
        if self.size_bytes > self._listed_bytes:
            raise self._corrupt(f"it has more than the {self._listed_bytes} bytes listed")
        if self._staging is None and self.size_bytes > MEMORY_BYTES:
            self._spill()
        if self._staging is None:
            self._chunks.append(chunk)
        else:
            write_all(self._staging.fd, chunk)

    def finish(
        self, headers: Mapping[str, str], etag: str, *, must_match: bool, is_aws: bool
    ) -> Staging:
        """
        Verify the body against the size, checksums and ETag that S3 reported; return it as a
        complete staging file.

        Args:
            must_match: Whether an ETag that should be an MD5 must match.
            is_aws: Whether the store is AWS, whose headers show if an ETag is an MD5.

        Raises:
            ObjectError: The body must not be published.
            OSError: The disk is full.
        """
        if self.size_bytes != self._listed_bytes:
            raise self._corrupt(
                f"it has {self.size_bytes} bytes, not the {self._listed_bytes} listed"
            )
        is_verified = self._has_checksum(headers)
        if not is_verified and is_md5(etag, headers, is_aws=is_aws):
            found = md5_of(self._blocks())
            is_verified = found == etag
            if must_match and not is_verified:
                raise self._corrupt(f"its MD5 is {found}, but its ETag is {etag}", _ETAG_ADVICE)
        if self._staging is None:
            self._spill()
        assert self._staging is not None
        self._staging.is_verified = is_verified
        return self._staging

    def _spill(self) -> None:
        """
        Move the body from memory to a staging file.
        """
        self._staging = self._folder.open()
        for held in self._chunks:
            write_all(self._staging.fd, held)
        self._chunks.clear()

    def _blocks(self) -> Iterator[bytes]:
        if self._staging is None:
            yield from self._chunks
            return
        offset = 0
        while block := os.pread(self._staging.fd, BLOCK_BYTES, offset):
            yield block
            offset += len(block)

    def _has_checksum(self, headers: Mapping[str, str]) -> bool:
        """
        Whether a checksum that S3 sent matches.

        Raises:
            ObjectError: One does not match.
        """
        is_verified = False
        for name, start in _CHECKSUMS.items():
            said = headers.get(f"x-amz-checksum-{name}", "")
            if not said or "-" in said or headers.get("x-amz-checksum-type") == "COMPOSITE":
                continue
            checksum = start()
            for block in self._blocks():
                checksum.update(block)
            found = base64.b64encode(checksum.digest()).decode()
            if found != said:
                raise self._corrupt(f"its {name} is {found}, but S3 reports {said}")
            is_verified = True
        return is_verified

    def _corrupt(self, message: str, advice: str = "") -> ObjectError:
        return ObjectError(
            "object_corrupt",
            f"the download of {self._key!r} was refused: {message}",
            "The file on disk was not changed. If it persists, find out what alters S3's "
            f"responses, such as a proxy.{advice}",
        )


_ETAG_ADVICE = " If this store's ETags only look like MD5s, set S3_SYNC_VERIFY=lenient."


def is_md5(etag: str, headers: Mapping[str, str], *, is_aws: bool) -> bool:
    """
    Whether an ETag should be the MD5 of the object.

    False for multipart uploads (their ETags contain a dash). On AWS also False for SSE-KMS, SSE-C
    and S3 Express, whose ETags look like MD5s; on other stores for any encrypted object:
    https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html
    """
    encryption = headers.get("x-amz-server-side-encryption", "")
    return (
        looks_like_md5(etag)
        and (not encryption or (is_aws and encryption == "AES256"))
        and "x-amz-server-side-encryption-customer-algorithm" not in headers
        and headers.get("x-amz-storage-class") != "EXPRESS_ONEZONE"
    )


class _Checksum(Protocol):
    def update(self, block: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


class _Crc:
    """
    Args:
        calculate: Returns the CRC of a block, continuing from the CRC of the previous blocks.
    """

    def __init__(self, calculate: Callable[[bytes, int], int], size_bytes: int) -> None:
        self._calculate = calculate
        self._size_bytes = size_bytes
        self._value = 0

    def update(self, block: bytes, /) -> None:
        self._value = self._calculate(block, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._size_bytes, "big")


@cache
def _crc_of(model: str) -> Callable[[bytes, int], int]:
    """
    Return a CRC function that the standard library lacks.
    """
    import anycrc  # noqa: PLC0415 - 25 ms and 4 MiB, only where a store sends such a checksum

    calculate: Callable[[bytes, int], int] = anycrc.Model(model).calc
    return calculate


# By S3's names; for anycrc see docs/decisions/0020-crc-library.md.
_CHECKSUMS: dict[str, Callable[[], _Checksum]] = {
    "crc32": lambda: _Crc(zlib.crc32, 4),
    "crc32c": lambda: _Crc(_crc_of("CRC32-ISCSI"), 4),
    "crc64nvme": lambda: _Crc(_crc_of("CRC64-NVME"), 8),
    "sha256": hashlib.sha256,
    "sha1": lambda: hashlib.sha1(usedforsecurity=False),
}
