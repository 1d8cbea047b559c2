"""
The download of one object: kept in memory if small, else in a staging file, and verified.
"""

from __future__ import annotations

import base64
import hashlib
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from enum import Enum, auto
from functools import cache
from typing import Protocol

from s3_sync.digest import looks_like_md5, md5_of
from s3_sync.s3.refusals import ObjectError
from s3_sync.tree.staging import Staging
from s3_sync.tree.volume import BLOCK_BYTES
from sidecar_runtime.volume.files import write_all

MEMORY_BYTES = 1 << 20


class Proof(Enum):
    """
    The proof of a body: a checksum, an MD5 in the ETag, or none; or an ETag that contradicts it.
    """

    CHECKSUM = auto()
    MD5 = auto()
    NONE = auto()
    CONTRADICTED = auto()


class Download:
    """
    Receives the body of one object.

    Args:
        size_bytes: The listed size.
        open_staging: Opens a new staging file, for a body too big for memory.
    """

    def __init__(self, key: str, size_bytes: int, open_staging: Callable[[], Staging]) -> None:
        self._key = key
        self._listed_bytes = size_bytes
        self._open_staging = open_staging
        self._chunks: list[bytes] = []
        self.staging: Staging | None = None
        self.size_bytes = 0
        # Whether a checksum or MD5 from S3 matches the body.
        self.is_verified = False

    def restart(self) -> None:
        """
        Discard the received bytes for a new attempt.
        """
        self._chunks.clear()
        self.size_bytes = 0
        if self.staging is not None:
            os.ftruncate(self.staging.fd, 0)
            os.lseek(self.staging.fd, 0, os.SEEK_SET)

    def write(self, chunk: bytes) -> None:
        """
        Receive a piece of the body.

        Raises:
            ObjectError: The body exceeds the listed size; an endless body must not fill the disk.
            OSError: The disk is full.
        """
        self.size_bytes += len(chunk)
        if self.size_bytes > self._listed_bytes:
            raise self.corrupt(f"it has more than the {self._listed_bytes} bytes listed")
        if self.staging is None and self.size_bytes > MEMORY_BYTES:
            self.staging = self._open_staging()
            for held in self._chunks:
                write_all(self.staging.fd, held)
            self._chunks.clear()
        if self.staging is None:
            self._chunks.append(chunk)
        else:
            write_all(self.staging.fd, chunk)

    def blocks(self) -> Iterator[bytes]:
        """
        Return the body in pieces.
        """
        if self.staging is None:
            yield from self._chunks
            return
        offset = 0
        while block := os.pread(self.staging.fd, BLOCK_BYTES, offset):
            yield block
            offset += len(block)

    def md5(self) -> str:
        """
        Return the MD5 of the body, in hex as in an ETag.
        """
        return md5_of(self.blocks())

    def compare(self, headers: Mapping[str, str], etag: str, *, is_aws: bool) -> Proof:
        """
        Compare the body with the size, checksums and ETag that S3 reported.

        Args:
            is_aws: Whether the store is AWS, whose headers show if an ETag is an MD5.

        Raises:
            ObjectError: The length or a checksum is wrong.
        """
        self.is_verified = False
        if self.size_bytes != self._listed_bytes:
            raise self.corrupt(
                f"it has {self.size_bytes} bytes, not the {self._listed_bytes} listed"
            )
        for name, start in _CHECKSUMS.items():
            said = headers.get(f"x-amz-checksum-{name}", "")
            if not said or "-" in said or headers.get("x-amz-checksum-type") == "COMPOSITE":
                continue
            checksum = start()
            for block in self.blocks():
                checksum.update(block)
            found = base64.b64encode(checksum.digest()).decode()
            if found != said:
                raise self.corrupt(f"its {name} is {found}, but S3 reports {said}")
            self.is_verified = True
        if self.is_verified:
            return Proof.CHECKSUM
        if not is_md5(etag, headers, is_aws=is_aws):
            return Proof.NONE
        self.is_verified = self.md5() == etag
        return Proof.MD5 if self.is_verified else Proof.CONTRADICTED

    def corrupt(self, message: str) -> ObjectError:
        """
        Return the error for a body that must not be published.
        """
        return ObjectError(
            "object_corrupt",
            f"the download of {self._key!r} was refused: {message}",
            "The file on disk was not changed. If it persists, find out what alters S3's "
            "responses, such as a proxy.",
        )


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
