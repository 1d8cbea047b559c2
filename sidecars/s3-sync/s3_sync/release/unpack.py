"""
Extracts files from a bundle while it downloads: each is inflated, verified and staged.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from s3_sync.release.content import IncomingContent, bundle_corrupt
from s3_sync.release.rows import File
from s3_sync.tree.staging import Staged, Staging
from s3_sync.tree.target import Target
from sidecar_runtime.volume.files import write_all

_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class Cutter:
    """
    Receives one part of a bundle, and stages its files.

    Args:
        files: The files to extract, in the order of the bundle.
        bundle_bytes: The size of the whole bundle.
        keep: Called with each staged file.
    """

    def __init__(
        self,
        files: Sequence[File],
        bundle_bytes: int,
        target: Target,
        keep: Callable[[Staged], object],
    ) -> None:
        self._files = files
        self._bundle_bytes = bundle_bytes
        self._target = target
        self._keep = keep
        self._next = 0
        self._at = 0
        self._unpacking: Unpacking | None = None
        self.received_bytes = 0

    @property
    def size_bytes(self) -> int:
        """
        The size of the missing rest.
        """
        last = self._files[-1]
        return last.offset + last.stored_bytes - self._first

    @property
    def _first(self) -> int:
        # The last file again, if only the data after it was lost.
        return self._files[min(self._next, len(self._files) - 1)].offset

    def headers(self) -> Mapping[str, str]:
        """
        Return the headers that request the missing rest.
        """
        return {"range": f"bytes={self._first}-{self._first + self.size_bytes - 1}"}

    def check(self, headers: Mapping[str, str]) -> None:
        """
        Determine where the response begins; a server without ranges sends the whole bundle.

        Raises:
            ObjectError: The size of the bundle does not match the manifest.
        """
        found = _CONTENT_RANGE.fullmatch(headers.get("content-range", ""))
        total = found[2] if found else headers.get("content-length", "*")
        if total not in ("*", str(self._bundle_bytes)):
            raise bundle_corrupt(
                f"the bundle has {total} bytes, its manifest expects {self._bundle_bytes}"
            )
        self._at = int(found[1]) if found else 0
        if self._at > self._first:
            raise bundle_corrupt("the server sent another part of the bundle than requested")

    def restart(self) -> None:
        """
        Discard the incomplete file, if any.
        """
        if self._unpacking is not None:
            self._unpacking.discard()
            self._unpacking = None

    def write(self, chunk: bytes) -> None:
        """
        Process the next bytes, in pieces of any size.

        Raises:
            ObjectError: A file does not match the manifest.
            OSError: The volume fails.
        """
        self.received_bytes += len(chunk)
        start, stop = self._at, self._at + len(chunk)
        self._at = stop
        while self._next < len(self._files):
            file = self._files[self._next]
            if file.offset >= stop:
                return
            if self._unpacking is None:
                self._unpacking = Unpacking(file, self._target)
            end = file.offset + file.stored_bytes
            self._unpacking.write(chunk[max(file.offset - start, 0) : end - start])
            if end > stop:
                return
            self._keep(self._unpacking.finish())
            self._unpacking = None
            self._next += 1

    def finish(self) -> None:
        """
        Check that all files were received.

        Raises:
            ObjectError: The response ended too early.
        """
        if self._next < len(self._files):
            raise bundle_corrupt(f"the bundle ends before {self._files[self._next].path!r}")


class Unpacking:
    """
    Unpacks one file from the bundle into staging.
    """

    def __init__(self, file: File, target: Target) -> None:
        self._file = file
        self._target = target
        self._staging: Staging = target.staging.open()
        self._content = IncomingContent(file, partial(write_all, self._staging.fd))
        self.write = self._content.write

    def finish(self) -> Staged:
        """
        Verify the file and return it, staged and ready to be renamed into place.
        """
        self._content.finish()
        return self._target.stage(self._file.path, self._file, self._staging)

    def discard(self) -> None:
        """
        Remove the staging file.
        """
        self._target.staging.discard(self._staging)
