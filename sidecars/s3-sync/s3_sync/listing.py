"""
The source ``listing``: every object under the prefix becomes a file.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import NamedTuple

from s3_sync.digest import Content
from s3_sync.download import Download, Work
from s3_sync.folder.volume import Blocked
from s3_sync.keys import compile_filter
from s3_sync.pages import Page, PageReader, digest_of, join, listing_invalid, names_in, next_token
from s3_sync.plan import State
from s3_sync.reasons import concerns
from s3_sync.s3.client import S3Client
from s3_sync.s3.refusals import ObjectError, ObjectMoved, SourceError
from s3_sync.s3.wire import WireError
from s3_sync.settings import Settings
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.files import explain_os_error, free_bytes

CONNECTIONS = 16
# From this size on, free space is checked before an object is downloaded.
LARGE_BYTES = 64 << 10
# A bound of the code: each 1,000 keys take about 1 MiB.
KEYS_LIMIT = 200_000
# After this many failures in a row, without a success, the endpoint fails, not single objects.
FAILURE_STREAK = 8
NEIGHBORS = 5
# An object that began in this part of a cycle had enough time: it is slow.
LATE_SHARE = 0.1

log = get_logger("listing")


class ListingSource:
    """
    Lists a prefix, and downloads its objects; belongs to one thread and its event loop.

    A page whose bytes did not change since the last listing is not parsed again.
    """

    def __init__(self, settings: Settings, client: S3Client) -> None:
        self._settings = settings
        self._client = client
        self._filter = compile_filter(settings.include, settings.exclude)
        # The patterns that no key has matched, by setting, until they are logged.
        self._unused = [("S3_SYNC_INCLUDE", glob) for glob in settings.include]
        self._unused += [("S3_SYNC_EXCLUDE", glob) for glob in settings.exclude]
        target_bytes = len(settings.dest_path.encode())
        self._reader = PageReader(settings.prefix, self._is_wanted, target_bytes)
        # The pages of the last listing, in order, by their digests.
        self._pages: dict[bytes, Page] = {}
        self._state = State("", {})

    async def read(self, fence: Fence) -> State:
        """
        Return the listing; the same object while nothing changes.

        Raises:
            SourceError: S3 rejected the request, the response contradicts itself, or the prefix is
                empty.
            CycleAbandoned: The fence was revoked.
        """
        self._client.begin_cycle(fence)
        pages: dict[bytes, Page] = {}
        token: str | None = None
        keys = 0
        while True:
            body = await self._client.list_page(token)
            digest = digest_of(body)
            page = self._pages.get(digest) or self._reader.read(body)
            if page.keys and digest in pages:
                raise listing_invalid("S3 returned the same page twice")
            pages[digest] = page
            keys += page.keys
            if keys > KEYS_LIMIT:
                raise SourceError(
                    "too_many_keys",
                    f"the prefix contains more than {KEYS_LIMIT} keys",
                    "Set KEY_PATH to the DAG folder only. Filters do not help, because S3 lists "
                    "every key.",
                )
            token = next_token(body, page)
            if token is None:
                break
        if not self._state.revision or list(pages) != list(self._pages):
            self._state = join(pages.values(), self._settings.prefix)
            self._pages = pages
            self._tell_unused()
        if not self._state.files and not self._settings.allow_empty:
            raise await self._empty()
        return self._state

    async def confirm(self, paths: Collection[str], fence: Fence) -> set[str]:
        """
        Return the paths that a second listing lacks as well: a store or a proxy may lose a page
        once, and a deletion is hard to undo.
        """
        again = await self.read(fence)
        return {path for path in paths if path not in again.files and path not in again.kept}

    async def fetch(
        self, paths: Sequence[str], state: State, work: Work, before: Mapping[str, SidecarError]
    ) -> None:
        """
        Download objects into a folder; the work notes those that fail. Files on disk that have the
        content already are adopted.

        Args:
            before: Earlier errors by path: repeating one is no evidence against the endpoint.

        Raises:
            SidecarError: The endpoint fails as a whole.
            OSError: The volume fails as a whole.
            CycleAbandoned: The fence was revoked.
        """
        await _Fetching(self._client, self._settings, state.files, work, before).run(paths)

    def close(self) -> None:
        """
        Drop the connections.
        """
        self._client.close()

    def _is_wanted(self, path: str) -> bool:
        if self._unused:
            self._unused = [one for one in self._unused if not fnmatchcase(path, one[1])]
        return self._filter(path)

    def _tell_unused(self) -> None:
        """
        Log the patterns that match no key of a listing, once; one without keys says nothing.
        """
        if any(page.files or page.filtered for page in self._pages.values()):
            for setting, glob in self._unused:
                log.warning("pattern_unused", setting=setting, value=glob)
            self._unused = []

    async def _empty(self) -> SourceError:
        """
        Return the error for a prefix without a file to sync, which counts what is there, and names
        what is beside it.
        """
        skipped = Counter(self._state.skipped.values())
        filtered = sum(page.filtered for page in self._pages.values())
        said = [f"{count} skipped ({reason})" for reason, count in sorted(skipped.items())]
        if filtered:
            said.append(f"{filtered} left out by S3_SYNC_INCLUDE and S3_SYNC_EXCLUDE")
        advice = "Check KEY_PATH for a typo."
        if "release" in skipped:
            advice = "Set S3_SYNC_SOURCE=release to sync the releases, or check KEY_PATH."
        return SourceError(
            "source_empty",
            f"{self._settings.source} contains no files to sync: "
            + (", ".join(said) or await self._neighbors()),
            f"{advice} Nothing was deleted. If the folder is meant to be empty, set "
            "S3_SYNC_ALLOW_EMPTY=true.",
        )

    async def _neighbors(self) -> str:
        """
        Describe the keys and folders beside an empty prefix, those with similar names first.
        """
        above = self._settings.key_path.rpartition("/")[0]
        above = f"{above}/" if above else ""
        try:
            body = await self._client.list_page(None, above, delimiter="/")
        except SidecarError:
            return "no key begins with it"
        names = [name for name in names_in(body) if name != above]
        first = get_close_matches(self._settings.prefix, names, NEIGHBORS, cutoff=0.0)
        beside = ", ".join(first) or "no others"
        return f"no key begins with it; beside it are {beside}"


@dataclass(slots=True)
class _Fetching:
    """
    Downloads the objects of one plan, several at a time.

    Args:
        late_from: Objects that begin later (monotonic seconds) go on in the next cycle if they do
            not end.
        streak: Endpoint-like failures in a row.
    """

    client: S3Client
    settings: Settings
    files: Mapping[str, Content]
    work: Work
    before: Mapping[str, SidecarError]
    late_from: float = 0.0
    streak: int = 0

    async def run(self, paths: Sequence[str]) -> None:
        now = time.monotonic()
        self.late_from = now + LATE_SHARE * (self.work.until - now)
        queue = iter(sorted(paths, key=self.before.__contains__))
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(CONNECTIONS, len(paths))):
                    group.create_task(self._next(queue))
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _next(self, queue: Iterator[str]) -> None:
        for path in queue:
            if time.monotonic() < self.work.until:
                await self._one(path, self.files[path])
            elif path in self.before:
                self.work.failed[path] = self.before[path]
            else:
                self.work.unreached.add(path)

    async def _one(self, path: str, file: Content) -> None:
        work, is_late = self.work, time.monotonic() > self.late_from
        try:
            if not work.adopts(path, file):
                await self._download(path, file)
            self.streak = 0
        except ObjectMoved:
            self._fail(path, _changing(self._key(path)))
        except Blocked:
            work.blocked.add(path)
        except (ObjectError, WireError) as error:
            if concerns(error.reason) == "cycle":
                raise
            if time.monotonic() < work.until:
                self._fail(path, error)
            elif is_late:
                work.unreached.add(path)
            else:
                self._fail(path, self._slow(path))
        except OSError as error:
            work.fail_on_disk(path, error)

    async def _download(self, path: str, file: Content) -> None:
        folder, size_bytes = self.work.folder, file.size_bytes
        if size_bytes >= LARGE_BYTES and size_bytes > free_bytes(folder.fd):
            full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            what = f"cannot write {path!r} ({size_bytes} bytes) to {folder.path}"
            self.work.failed[path] = explain_os_error(full, what)
            return
        try:
            await self._transfer(path, file, "identity")
        except ObjectError as error:
            if error.reason != "object_corrupt":
                raise
            # Some stores decompress what is stored with Content-Encoding: gzip, unless the client
            # accepts it; then neither the length nor the digest fits.
            await self._transfer(path, file, "gzip")

    async def _transfer(self, path: str, file: Content, encoding: str) -> None:
        """
        Download the stored bytes of an object, verify them, and put them into place.

        Raises:
            ObjectMoved, ObjectError, WireError: The object cannot be read.
            Blocked: A file of another owner is in the way.
            OSError: The volume fails.
        """
        work, key, verify = self.work, self._key(path), self.settings.verify
        must_match = verify == "strict" or (verify == "auto" and self.client.is_aws)
        with Download(key, file.size_bytes, work.folder.staging) as download:
            headers = await self.client.get_object(
                key, file.etag, file.size_bytes, download, until=work.until, encoding=encoding
            )
            work.downloaded_bytes += download.size_bytes
            staging = download.finish(headers, file.etag, must_match=must_match)
            work.folder.put(path, file, staging, work.fence, self.files.__contains__)
        stored = headers.get("content-encoding", "").replace("aws-chunked", "").strip(", ")
        if stored not in ("", "identity"):
            advice = "The file has the encoded bytes, as they are stored. Upload the object "
            advice += "without Content-Encoding."
            log.warning("object_encoded", key=key, encoding=stored, advice=advice)

    def _key(self, path: str) -> str:
        return f"{self.settings.prefix}{path}"

    def _fail(self, path: str, error: SidecarError) -> None:
        self.work.failed[path] = error
        if concerns(error.reason) == "request" and path not in self.before:
            self.streak += 1
            if self.streak >= FAILURE_STREAK:
                raise error

    def _slow(self, path: str) -> ObjectError:
        limit = f"{self.settings.variable_prefix}TIMEOUT"
        return ObjectError(
            "object_slow",
            f"{self._key(path)!r} was not complete before the cycle's time was up",
            f"Raise {limit} to more than its download takes, or exclude it with S3_SYNC_EXCLUDE. "
            "All other files are published.",
        )


def _changing(key: str) -> ObjectError:
    """
    Return the error for an object that no longer matches the listing.
    """
    return ObjectError(
        "object_changing",
        f"{key!r} changed or was deleted after it was listed, before it was read",
        "This resolves itself once the writer has finished. If it persists, the store's listing "
        "and the object have different ETags, or the key contains a control character.",
    )


class Reading(NamedTuple):
    """
    A listing, and since when it has been the same (monotonic seconds).

    A listing shows some moment between its request and its response: what is first seen in it has
    lasted since its response, and lasts until the next request at least.
    """

    revision: str
    since: float


def settle(before: Reading | None, revision: str, now: float) -> Reading:
    """
    Compare a listing with the reading before. Pure.

    Args:
        now: When the listing arrived (monotonic seconds).
    """
    return before if before is not None and before.revision == revision else Reading(revision, now)
