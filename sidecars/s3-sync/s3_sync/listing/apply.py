"""
Carries out a plan: publish new and changed files, then delete; the target makes all changes.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Iterator, Sequence

from s3_sync.digest import is_sha256, looks_like_md5
from s3_sync.listing.entries import Entry
from s3_sync.listing.trust import EtagTrust, contradiction
from s3_sync.result import OF_THE_ENDPOINT
from s3_sync.s3.client import S3Client
from s3_sync.s3.refusals import ObjectError, ObjectMoved
from s3_sync.s3.wire import WireError
from s3_sync.source import Order
from s3_sync.tree.download import Download, Proof
from s3_sync.tree.walk import Blocked
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.errors import FULL_ERRORS, explain_os_error

CONNECTIONS = 16
# From this size on, free space is checked before an object is downloaded.
LARGE_BYTES = 64 << 10

log = get_logger("apply")


class ListingApplier:
    """
    Carries out one order.
    """

    def __init__(self, client: S3Client, order: Order[Entry], trust: EtagTrust) -> None:
        self._client = client
        self._order = order
        self._trust = trust
        self._target = order.target
        self._fence = order.fence
        self._damaged = order.damaged
        self._result = order.result
        self._wanted = order.state.wanted
        self._is_wanted = self._wanted.__contains__
        # An empty target: no file can save a download, so a cold start inspects none.
        self._is_bare = not order.target.managed.files and order.target.is_bare()
        # Objects that contradict their ETag, and their MD5s, until it is known what ETags are.
        self._deferred: list[str] = []
        self._md5s: dict[str, str] = {}
        # Objects larger than the free space.
        self._too_large: list[str] = []

    async def apply(self) -> None:
        """
        Carry out the plan: deletions last, or first if that frees space that is needed.

        A file that cannot be read, or is larger than the free space, does not hold back others.

        Raises:
            SidecarError: The source or the endpoint fails as a whole.
            OSError: The target fails as a whole.
            CycleAbandoned: The fence was revoked.
        """
        plan = self._order.plan
        try:
            await self._publish_all(plan.publish)
            is_full = bool(self._too_large)
        except OSError as error:
            if error.errno not in FULL_ERRORS or not plan.delete:
                raise
            is_full = True
        if is_full and plan.delete:
            log.warning("target_full", files_to_delete=len(plan.delete))
            self._delete_all()
            self._too_large.clear()
            await self._publish_all([path for path in plan.publish if self._is_open(path)])
        for path in self._too_large:
            size_bytes = self._wanted[path].size_bytes
            full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            what = f"cannot write {path!r} ({size_bytes} bytes) to {self._target.path}"
            self._result.fail(path, explain_os_error(full, what))
        self._delete_all()

    def _delete_all(self) -> None:
        if self._order.plan.delete:
            self._order.begin()
            self._order.delete_all()

    async def _publish_all(self, publish: Sequence[str]) -> None:
        await self._each(publish)
        if self._deferred and self._trust.is_open:
            self._trust.ask_witnesses(self._target)
        deferred, self._deferred = self._deferred, []
        await self._each(deferred)

    async def _each(self, publish: Sequence[str]) -> None:
        paths = iter(publish)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(CONNECTIONS, len(publish))):
                    group.create_task(self._publish_next(paths))
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    def _is_open(self, path: str) -> bool:
        """
        Whether a file has neither been published nor failed in this cycle.
        """
        if path in self._result.failed:
            return False
        held = self._target.managed.files.get(path)
        return held is None or held.etag != self._wanted[path].etag or path in self._damaged

    async def _publish_next(self, paths: Iterator[str]) -> None:
        for path in paths:
            if self._result.fails_again(path):
                continue
            entry = self._wanted[path]
            is_new = path not in self._target.managed.files
            try:
                if path in self._order.blocked and self._target.is_blocked(path, self._is_wanted):
                    raise Blocked
                if self._may_hold(path, entry) and self._target.holds(path, entry):
                    self._target.adopt(path, entry, self._fence)
                    is_published = False
                    if entry.size_bytes:
                        self._trust.prove()
                else:
                    is_published = await self._publish(path, entry)
                self._result.succeed(
                    path,
                    is_published=is_published,
                    is_healed=path in self._damaged,
                    is_new=is_new,
                )
            except _Deferred:
                self._deferred.append(path)
            except _TooLarge:
                self._too_large.append(path)
            except ObjectMoved:
                self._result.fail(path, changing(entry))
            except Blocked:
                self._result.blocked.add(path)
            except ObjectError as error:
                self._result.fail(path, error)
            except WireError as error:
                if error.reason not in OF_THE_ENDPOINT:
                    raise
                self._result.fail(path, error)
            except OSError as error:
                self._result.fail_on_disk(path, error)

    def _may_hold(self, path: str, entry: Entry) -> bool:
        """
        Whether the file on disk may save a download: it is unknown, damaged or from a release, and
        an MD5 can identify it.
        """
        if self._is_bare:
            return False
        held = self._target.managed.files.get(path)
        is_unsure = held is None or path in self._damaged or is_sha256(held.etag)
        return is_unsure and looks_like_md5(entry.etag)

    async def _publish(self, path: str, entry: Entry) -> bool:
        if entry.size_bytes >= LARGE_BYTES and entry.size_bytes > self._target.free_bytes():
            raise _TooLarge
        download = Download(entry.key, entry.size_bytes, self._target.staging.open)
        try:
            await self._load(path, entry, download)
            self._order.begin()
            return self._target.publish(path, entry, download, self._fence, self._is_wanted)
        finally:
            if download.staging is not None:
                self._target.staging.discard(download.staging)

    async def _load(self, path: str, entry: Entry, download: Download) -> None:
        """
        Download and verify.

        While it is unknown what this store's ETags are, an object that contradicts its ETag waits
        for the others. If they do not show it either, it is downloaded a second time: two equal
        downloads rule out a network error.

        Raises:
            _Deferred: The object waits.
            ObjectError: The bytes must not be published.
        """
        headers = await self._client.get_object(entry.key, entry.etag, entry.size_bytes, download)
        self._result.downloaded_bytes += download.size_bytes
        proof = download.compare(headers, entry.etag, is_aws=self._trust.is_aws)
        if proof is not Proof.CONTRADICTED:
            if proof is Proof.MD5 and download.size_bytes:
                self._trust.prove()
            self._trust.doubtful.discard(path)
            return
        md5, before = download.md5(), self._md5s.get(path)
        if self._trust.is_strict:
            raise contradiction(entry.key, entry.etag, md5)
        if self._trust.is_open:
            if before is None:
                self._md5s[path] = md5
                raise _Deferred
            if md5 != before:
                raise download.corrupt(f"two downloads differ, and neither is {entry.etag}")
            log.info("etag_not_md5", key=entry.key, etag=entry.etag)
        self._trust.disprove(path)


class _TooLarge(Exception):
    """
    The object is larger than the free space.
    """


class _Deferred(Exception):
    pass


def changing(entry: Entry) -> ObjectError:
    """
    Return the error for an object that no longer matches the listing.
    """
    return ObjectError(
        "object_changing",
        f"{entry.key!r} changed or was deleted after it was listed, before it was read",
        "This resolves itself once the writer has finished. If it persists, the store's listing "
        "and the object have different ETags, or the key contains a control character.",
    )
