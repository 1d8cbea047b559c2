"""
Carrying out a plan: publish new and changed files, then delete; effects only through the target.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from s3_sync.digest import is_sha256, looks_like_md5
from s3_sync.listing.entries import Entry
from s3_sync.result import OF_THE_ENDPOINT
from s3_sync.s3.client import S3Client
from s3_sync.s3.refusals import ObjectError, ObjectMoved
from s3_sync.s3.wire import WireError
from s3_sync.source import Order
from s3_sync.tree.download import Download
from s3_sync.tree.walk import Blocked
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.errors import FULL_ERRORS

CONNECTIONS = 16

log = get_logger("apply")


class ListingApplier:
    """
    Carries out one order.
    """

    def __init__(self, client: S3Client, order: Order[Entry]) -> None:
        self._client = client
        self._order = order
        self._target = order.target
        self._fence = order.fence
        self._damaged = order.damaged
        self._result = order.result
        self._is_wanted = order.state.wanted.__contains__

    async def apply(self) -> None:
        """
        Do what the plan says; deletions only when every publish succeeded, or to make room.

        Raises:
            SidecarError: The source or the endpoint fails as a whole.
            OSError: The target fails as a whole.
            CycleAbandoned: The fence was revoked.
        """
        plan = self._order.plan
        try:
            await self._publish_all(plan.publish)
        except OSError as error:
            if error.errno not in FULL_ERRORS or not plan.delete:
                raise
            log.warning("target_full", files_to_delete=len(plan.delete))
            self._order.delete_all()
            await self._publish_all([(p, e) for p, e in plan.publish if not self._is_done(p, e)])
        if self._result.is_complete:
            self._order.delete_all()

    async def _publish_all(self, publish: Sequence[tuple[str, Entry]]) -> None:
        items = iter(publish)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(CONNECTIONS, len(publish))):
                    group.create_task(self._publish_next(items))
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    def _is_done(self, path: str, entry: Entry) -> bool:
        held = self._target.managed.files.get(path)
        return held is not None and held.etag == entry.etag and path not in self._damaged

    async def _publish_next(self, items: Iterator[tuple[str, Entry]]) -> None:
        for path, entry in items:
            try:
                if path in self._order.blocked and self._target.is_blocked(path, self._is_wanted):
                    raise Blocked
                if self._may_hold(path, entry) and self._target.holds(path, entry):
                    self._target.adopt(path, entry, self._fence)
                    is_published = False
                else:
                    is_published = await self._publish(path, entry)
                self._result.succeed(is_published=is_published, is_healed=path in self._damaged)
            except ObjectMoved:
                self._result.moved.append(entry.key)
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
        Whether a look at the disk may save the download: unknown, damaged, or from a release; and
        an MD5 to tell.
        """
        held = self._target.managed.files.get(path)
        is_unsure = held is None or path in self._damaged or is_sha256(held.etag)
        return is_unsure and looks_like_md5(entry.etag)

    async def _publish(self, path: str, entry: Entry) -> bool:
        download = Download(entry.key, entry.size_bytes, self._target.staging.open)
        try:
            await self._load(entry, download)
            return self._target.publish(path, entry, download, self._fence, self._is_wanted)
        finally:
            if download.staging is not None:
                self._target.staging.discard(download.staging)

    async def _load(self, entry: Entry, download: Download) -> None:
        """
        Download and verify; twice where only an ETag speaks against the content.

        Some gateways send ETags that look like an MD5 but are not. Two equal downloads are no
        accident of the network. A store that has shown this, and never a real MD5, is not asked
        twice again.
        """
        suspect = ""
        while True:
            headers = await self._client.get_object(
                entry.key, entry.etag, entry.size_bytes, download
            )
            self._result.downloaded_bytes += download.size_bytes
            if download.is_proven(headers, entry.etag):
                if download.has_md5_etag and download.size_bytes:
                    self._client.has_md5_etags = True
                return
            if self._client.has_md5_etags is False:
                return
            md5 = download.md5()
            if md5 == suspect:
                log.info("etag_not_md5", key=entry.key, etag=entry.etag)
                if self._client.has_md5_etags is None:
                    self._client.has_md5_etags = False
                return
            if suspect:
                raise download.corrupt(f"two downloads differ, and neither is {entry.etag}")
            suspect = md5
