"""
Identifies the content of a file: the ETag of an object, or the digest in a release.

A release has SHA-256 and executable bit, ``<64 hex digits>[+x]``; an ETag may be an MD5.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Protocol

EXECUTABLE = "+x"

_MD5 = re.compile(r"[0-9a-f]{32}")
_SHA256 = re.compile(r"[0-9a-f]{64}(?:\+x)?")


class Content(Protocol):
    """
    Identifies the content of a file.
    """

    @property
    def etag(self) -> str: ...

    @property
    def size_bytes(self) -> int: ...


def looks_like_md5(etag: str) -> bool:
    """
    Whether an ETag looks like an MD5; not every such ETag is one.
    """
    return _MD5.fullmatch(etag) is not None


def is_sha256(etag: str) -> bool:
    """
    Whether an ETag is the digest of a file in a release.
    """
    return _SHA256.fullmatch(etag) is not None


def is_executable(etag: str) -> bool:
    """
    Whether the file should be executable.
    """
    return etag.endswith(EXECUTABLE) and is_sha256(etag)


def has_digest(etag: str, blocks: Iterable[bytes]) -> bool:
    """
    Whether blocks have the ETag's digest; False for an ETag that is not a digest.
    """
    if looks_like_md5(etag):
        return etag == md5_of(blocks)
    if not is_sha256(etag):
        return False
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
    return etag.removesuffix(EXECUTABLE) == digest.hexdigest()


def md5_of(blocks: Iterable[bytes]) -> str:
    """
    Return the MD5 of blocks, in hex; marked as not for security, so it works under FIPS.
    """
    digest = hashlib.md5(usedforsecurity=False)
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
