"""
Cutting files out of a bundle while it comes: each inflated, verified and staged on its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from s3_sync.release.content import Content, bundle_corrupt
from s3_sync.release.rows import File
from s3_sync.tree.staging import Staged, Staging
from s3_sync.tree.target import Target
from sidecar_runtime.volume.files import write_all

_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class Cutter:
    """
    The receiver of one part of a bundle.

    Args:
        files: What to cut out, in the order of the bundle.
        bundle_bytes: The size of the whole bundle.
        keep: Takes each file that is staged.
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
        How much is still to come.
        """
        last = self._files[-1]
        return last.offset + last.stored_bytes - self._first

    @property
    def _first(self) -> int:
        # The last file again where only what follows it was lost.
        return self._files[min(self._next, len(self._files) - 1)].offset

    def headers(self) -> Mapping[str, str]:
        """
        Return the headers that ask for what is still missing.
        """
        return {"range": f"bytes={self._first}-{self._first + self.size_bytes - 1}"}

    def check(self, headers: Mapping[str, str]) -> None:
        """
        See where the answer begins; a server that knows no ranges sends all.

        Raises:
            ObjectError: The bundle has another size than its manifest says.
        """
        found = _CONTENT_RANGE.fullmatch(headers.get("content-range", ""))
        total = found[2] if found else headers.get("content-length", "*")
        if total not in ("*", str(self._bundle_bytes)):
            raise bundle_corrupt(
                f"the bundle has {total} bytes, its manifest says {self._bundle_bytes}"
            )
        self._at = int(found[1]) if found else 0
        if self._at > self._first:
            raise bundle_corrupt("another part of the bundle came than was asked for")

    def restart(self) -> None:
        """
        Throw away half of a file.
        """
        if self._unpacking is not None:
            self._unpacking.discard()
            self._unpacking = None

    def write(self, chunk: bytes) -> None:
        """
        Take what comes next, in whatever pieces.

        Raises:
            ObjectError: A file is not what the manifest says.
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
        Make sure that all has come.

        Raises:
            ObjectError: The answer ended too early.
        """
        if self._next < len(self._files):
            raise bundle_corrupt(f"the bundle ends before {self._files[self._next].path!r}")


class Unpacking:
    """
    One file on its way from the bundle into staging.
    """

    def __init__(self, file: File, target: Target) -> None:
        self._file = file
        self._target = target
        self._staging: Staging = target.staging.open()
        self._content = Content(file, partial(write_all, self._staging.fd))
        self.write = self._content.write

    def finish(self) -> Staged:
        """
        Return the file, verified; it only waits for its name.
        """
        self._content.finish()
        return self._target.stage(self._file.path, self._file, self._staging)

    def discard(self) -> None:
        """
        Remove what is staged.
        """
        self._target.staging.discard(self._staging)
