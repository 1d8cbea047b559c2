"""
The download of one object into a staging file, verified.
"""

from __future__ import annotations

import asyncio
import base64
import os
import zlib
from collections.abc import Callable, Coroutine, Iterable
from functools import cache
from typing import Any

from s3_sync.names import hash_of, looks_like_md5
from s3_sync.reasons import ObjectError
from s3_sync.s3.http import Headers
from s3_sync.volume import Staging, StagingFolder, read_blocks
from sidecar_runtime.volume.files import write_all

CONNECTIONS = 32
"""With 16, 1,000 files that are 20 ms away take 1.8 s instead of 1.1."""


async def at_once(bring: Callable[[], Coroutine[Any, Any, None]], count: int) -> None:
    """
    Run a task as often as there is something to bring, up to a number of connections;
    the first error ends all of them, and is raised.
    """
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(CONNECTIONS, count)):
                group.create_task(bring())
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None


class Download:
    """
    Receives the body of one object; closing it removes what was not put into place.

    Args:
        size_bytes: The listed size.
        folder: Where the body goes.

    Attributes:
        size_bytes: How much was received.
    """

    def __init__(self, key: str, size_bytes: int, folder: StagingFolder) -> None:
        self._key = key
        self._listed_bytes = size_bytes
        self._folder = folder
        self._staging = folder.open()
        self.size_bytes = 0

    def close(self) -> None:
        self._folder.discard(self._staging)

    def restart(self) -> None:
        """
        Discard the received bytes for a new attempt.
        """
        os.ftruncate(self._staging.fd, 0)
        os.lseek(self._staging.fd, 0, os.SEEK_SET)
        self.size_bytes = 0

    def write(self, chunk: bytes) -> None:
        """
        Receive a piece of the body.

        Raises:
            ObjectError: The body exceeds the listed size; an endless body must not fill
                the disk.
            OSError: The disk is full.
        """
        self.size_bytes += len(chunk)
        if self.size_bytes > self._listed_bytes:
            raise self._corrupt(
                f"it has more than the {self._listed_bytes} bytes listed"
            )
        write_all(self._staging.fd, chunk)

    def finish(self, headers: Headers, etag: str, *, must_match: bool) -> Staging:
        """
        Verify the body against the size, checksums and ETag that S3 reported; return it
        as a complete staging file.

        Args:
            must_match: Whether an ETag that should be an MD5 must match.

        Raises:
            ObjectError: The body must not be published.
            OSError: The disk is full.
        """
        if self.size_bytes != self._listed_bytes:
            raise self._corrupt(
                f"it has {self.size_bytes} bytes, not the {self._listed_bytes} listed"
            )
        staging = self._staging
        staging.is_verified = self._has_checksum(headers, staging)
        if not staging.is_verified and is_md5(etag, headers):
            found = hash_of("md5", read_blocks(staging.fd)).hex()
            staging.is_verified = found == etag
            if must_match and found != etag:
                raise self._corrupt(f"its MD5 is {found}, but its ETag is {etag}")
        return staging

    def _has_checksum(self, headers: Headers, staging: Staging) -> bool:
        """
        Whether a checksum that S3 sent matches.

        Raises:
            ObjectError: One does not match.
        """
        is_verified = False
        for name in CHECKSUMS:
            said = headers.get(f"x-amz-checksum-{name}", "")
            if (
                not said
                or "-" in said
                or headers.get("x-amz-checksum-type") == "COMPOSITE"
            ):
                continue
            found = base64.b64encode(
                checksum_of(name, read_blocks(staging.fd))
            ).decode()
            if found != said:
                raise self._corrupt(f"its {name} is {found}, but S3 reports {said}")
            is_verified = True
        return is_verified

    def _corrupt(self, message: str) -> ObjectError:
        return ObjectError(
            "object_corrupt",
            f"the download of {self._key!r} was refused: {message}",
        )


def is_md5(etag: str, headers: Headers) -> bool:
    """
    Whether an ETag should be the MD5 of the object, as far as AWS's headers tell.

    False for multipart uploads (their ETags contain a dash) and SSE-KMS; objects with
    SSE-C cannot be read:
    https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html
    """
    is_plain = headers.get("x-amz-server-side-encryption", "AES256") == "AES256"
    return looks_like_md5(etag) and is_plain


# Names of S3 → of anycrc, and their sizes in bytes; see docs/decisions/README.md.
_CRCS = {
    "crc32": ("CRC32", 4),
    "crc32c": ("CRC32-ISCSI", 4),
    "crc64nvme": ("CRC64-NVME", 8),
}
CHECKSUMS = (*_CRCS, "sha256", "sha1")


def checksum_of(name: str, blocks: Iterable[bytes]) -> bytes:
    """
    Return a checksum, by its name in S3's headers.
    """
    if name not in _CRCS:
        return hash_of(name, blocks)
    model, size_bytes = _CRCS[name]
    calculate = zlib.crc32 if name == "crc32" else _crc_of(model)
    value = 0
    for block in blocks:
        value = calculate(block, value)
    return value.to_bytes(size_bytes, "big")


@cache
def _crc_of(model: str) -> Any:
    """
    Return a CRC function that the standard library lacks.
    """
    import anycrc  # noqa: PLC0415 - 25 ms and 4 MiB, only where a store sends such a checksum

    return anycrc.Model(model).calc
