"""
Chooses which parts of a bundle to request. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from s3_sync.release.rows import File

# Gaps up to this size are downloaded and discarded rather than requested around: a request costs
# 0.2 ms of CPU and 20 ms of waiting, 64 KiB from S3 about 0.05 ms and 1 ms.
GAP_BYTES = 64 << 10


def join(files: Iterable[File]) -> list[list[File]]:
    """
    Group files into requests, in the order of the bundle.

    Args:
        files: Files with stored bytes.
    """
    parts: list[list[File]] = []
    end = 0
    for file in sorted(files, key=lambda file: file.offset):
        if not parts or file.offset - end > GAP_BYTES:
            parts.append([])
        parts[-1].append(file)
        end = file.offset + file.stored_bytes
    return parts
