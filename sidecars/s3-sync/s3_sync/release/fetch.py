"""
Brings files of a release into a folder: ranges of the bundle are downloaded, and each file in them
is inflated, verified and put into place while they arrive.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from s3_sync.download import Work
from s3_sync.folder.volume import Blocked, Staging
from s3_sync.release.bundle import IncomingContent, Part, bundle_corrupt, join
from s3_sync.release.format import File, Manifest
from s3_sync.s3.client import S3Client
from s3_sync.s3.wire import WireError
from sidecar_runtime.volume.files import write_all

CONNECTIONS = 16
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


async def fetch(
    client: S3Client, key: str, manifest: Manifest, paths: Sequence[str], work: Work
) -> None:
    """
    Bring files of a release; a crash leaves verified files and at most one staging file each.

    Args:
        key: The key of the bundle.

    Raises:
        ObjectMoved: The bundle does not exist.
        SidecarError: The bundle cannot be read, or does not match the manifest.
        OSError: The volume fails.
        CycleAbandoned: The fence was revoked.
    """
    missing = [file for path in paths if not work.adopts(path, file := manifest.files[path])]
    for file in missing:
        if not file.stored_bytes:
            unpacking = _Unpacking(file, work)
            try:
                unpacking.finish()
            finally:
                unpacking.discard()
    groups = join(missing, manifest.locate()) if missing else []
    queue = iter(groups)
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(CONNECTIONS, len(groups))):
                group.create_task(_read_next(client, key, manifest, queue, work))
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None


async def _read_next(
    client: S3Client, key: str, manifest: Manifest, queue: Iterator[list[Part]], work: Work
) -> None:
    for parts in queue:
        cutter = Cutter(parts, manifest.bundle_bytes, work)
        try:
            if time.monotonic() < work.until:
                await client.get(
                    "bundle",
                    key,
                    cutter.headers,
                    cutter.size_bytes,
                    cutter,
                    cutter.check,
                    work.until,
                )
                cutter.finish()
        except WireError:
            if time.monotonic() < work.until:
                raise
        finally:
            cutter.restart()
            work.downloaded_bytes += cutter.received_bytes
        work.unreached.update(cutter.left)  # the time is up


class Cutter:
    """
    Receives one part of a bundle, and puts its files into place.

    Args:
        parts: The files to extract, in the order of the bundle.
        bundle_bytes: The size of the whole bundle.
    """

    def __init__(self, parts: Sequence[Part], bundle_bytes: int, work: Work) -> None:
        self._parts = parts
        self._bundle_bytes = bundle_bytes
        self._work = work
        self._next = 0
        self._at = 0
        self._unpacking: _Unpacking | None = None
        self.received_bytes = 0

    @property
    def left(self) -> list[str]:
        """
        The files that have not arrived.
        """
        return [part.file.path for part in self._parts[self._next :]]

    @property
    def size_bytes(self) -> int:
        """
        The size of the missing rest.
        """
        return self._parts[-1].end - self._first

    @property
    def _first(self) -> int:
        # The last file again, if only the data after it was lost.
        return self._parts[min(self._next, len(self._parts) - 1)].offset

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
        while self._next < len(self._parts):
            part = self._parts[self._next]
            if part.offset >= stop:
                return
            if self._unpacking is None:
                self._unpacking = _Unpacking(part.file, self._work)
            self._unpacking.write(chunk[max(part.offset - start, 0) : part.end - start])
            if part.end > stop:
                return
            self._unpacking.finish()
            self.restart()
            self._next += 1

    def finish(self) -> None:
        """
        Check that all files were received.

        Raises:
            ObjectError: The response ended too early.
        """
        if self.left:
            raise bundle_corrupt(f"the bundle ends before {self.left[0]!r}")


class _Unpacking:
    """
    One file that is unpacked into staging.
    """

    def __init__(self, file: File, work: Work) -> None:
        self._file = file
        self._work = work
        self._staging: Staging = work.folder.staging.open()
        self._content = IncomingContent(file, partial(write_all, self._staging.fd))
        self.write = self._content.write

    def finish(self) -> None:
        """
        Verify the file and rename it into place.

        Raises:
            ObjectError: It does not match the manifest.
        """
        self._content.finish()
        self._staging.is_verified = True
        work, path = self._work, self._file.path
        try:
            work.folder.put(path, self._file, self._staging, work.fence, lambda _: True)
        except Blocked:
            work.blocked.add(path)

    def discard(self) -> None:
        """
        Remove the staging file, unless it was renamed into place.
        """
        self._work.folder.staging.discard(self._staging)
