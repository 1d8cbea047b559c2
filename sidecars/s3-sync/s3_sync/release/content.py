"""
Inflates and verifies one file of a bundle while its stored bytes arrive. Pure.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable

from s3_sync.release.rows import File
from s3_sync.s3.refusals import ObjectError

# The most to inflate at a time.
BLOCK_BYTES = 1 << 20


def bundle_corrupt(message: str) -> ObjectError:
    """
    Return the error for a bundle that does not match its manifest.
    """
    return ObjectError(
        "bundle_corrupt",
        message,
        "Nothing of this release was published; the published files stay. If the error persists, "
        "the bundle was altered in the bucket: publish the release again, or roll back.",
    )


class IncomingContent:
    """
    The incoming content of one file.

    Args:
        take: Receives the content, block by block; verified only when :meth:`finish` returns.
    """

    def __init__(self, file: File, take: Callable[[bytes], object]) -> None:
        self._file = file
        self._give = take
        self._inflater = (
            zlib.decompressobj(-zlib.MAX_WBITS) if file.stored_bytes < file.size_bytes else None
        )
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
