"""
Carrying out a plan: publish new and changed files, then delete; effects only through the target.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from s3_sync.client import S3Client
from s3_sync.download import MD5_HEX, Download
from s3_sync.listing import Entry, Listing
from s3_sync.plan import Plan
from s3_sync.refusals import ObjectError, ObjectMoved
from s3_sync.target import Target
from s3_sync.volume import FULL_ERRORS, VOLUME_ERRORS, explain_os_error
from s3_sync.walk import Blocked
from s3_sync.wire import WireError
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.logs import get_logger

CONNECTIONS = 16
# So many in a row, without a success in between, are the endpoint's failures and not the objects'.
FAILURE_STREAK = 8
# So many without any success at all: whatever it is, it is not worth asking for each.
HOPELESS_START = 64
# What the endpoint does to one request; the other reasons of the wire end the cycle at once.
OF_THE_ENDPOINT = {"request_timeout", "connection_lost", "server_error"}

log = get_logger("apply")


@dataclass(slots=True)
class Work:
    """
    What was done, and what went wrong with single objects.

    Args:
        moved: Keys of objects that changed since they were listed.
        blocked: Paths where something of somebody else is in the way.
        failed: The error by path.
    """

    published: int = 0
    adopted: int = 0
    deleted: int = 0
    healed: int = 0
    downloaded_bytes: int = 0
    moved: list[str] = field(default_factory=list)
    blocked: set[str] = field(default_factory=set)
    failed: dict[str, SidecarError] = field(default_factory=dict)
    streak: int = 0

    def add(self, other: Work) -> None:
        """
        Add what was done besides.
        """
        self.published += other.published
        self.deleted += other.deleted
        self.healed += other.healed
        self.blocked |= other.blocked
        self.failed |= other.failed

    def take_over(self, other: Work) -> None:
        """
        Add what was got from the source, for others to publish.
        """
        self.downloaded_bytes += other.downloaded_bytes
        self.moved += other.moved
        self.blocked |= other.blocked
        self.failed |= other.failed

    def succeed(self, *, is_published: bool, is_healed: bool) -> None:
        """
        Note that one file is as it should be.
        """
        self.published += is_published
        self.adopted += not is_published
        self.healed += is_healed
        self.streak = 0

    def fail(self, path: str, error: SidecarError) -> None:
        """
        Note the failure of one object.

        Raises:
            SidecarError: It is one too many; the cycle ends.
        """
        self.failed[path] = error
        self.streak += error.reason in OF_THE_ENDPOINT
        is_hopeless = not (self.published or self.adopted) and len(self.failed) >= HOPELESS_START
        if self.streak >= FAILURE_STREAK or is_hopeless:
            raise error

    def fail_on_disk(self, path: str, error: OSError) -> None:
        """
        Note what the file system refuses for one path.

        Raises:
            OSError: The volume fails, not the path; the cycle ends.
        """
        if error.errno in VOLUME_ERRORS:
            raise error
        self.fail(path, explain_os_error(error, f"cannot write {path!r}"))


class Applier:
    """
    Carries out one plan.

    Args:
        damaged: Managed paths that somebody changed on disk.
        blocked: Paths that were blocked the last time.
        given_up: Paths that have failed so often that nothing waits for them any more.
    """

    def __init__(
        self,
        client: S3Client,
        target: Target,
        listing: Listing,
        fence: Fence,
        *,
        damaged: Collection[str],
        blocked: Collection[str],
        given_up: Collection[str],
    ) -> None:
        self._client = client
        self._target = target
        self._wanted = listing.wanted
        self._fence = fence
        self._damaged = damaged
        self._blocked = blocked
        self._given_up = given_up
        self.work = Work()

    @property
    def is_complete(self) -> bool:
        """
        Whether all that anything waits for is in its place.
        """
        return not self.work.moved and self.work.failed.keys() <= set(self._given_up)

    async def apply(self, plan: Plan[Entry]) -> None:
        """
        Do what the plan says; deletions only when every publish succeeded, or to make room.

        Raises:
            SidecarError: The source or the endpoint fails as a whole.
            OSError: The target fails as a whole.
            CycleAbandoned: The fence was revoked.
        """
        try:
            await self._publish_all(plan.publish)
        except OSError as error:
            if error.errno not in FULL_ERRORS or not plan.delete:
                raise
            log.warning("target_full", files_to_delete=len(plan.delete))
            self._delete_all(plan.delete)
            await self._publish_all([(p, e) for p, e in plan.publish if not self._is_done(p, e)])
        if self.is_complete:
            self._delete_all(plan.delete)

    async def _publish_all(self, publish: Sequence[tuple[str, Entry]]) -> None:
        items = iter(publish)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(CONNECTIONS, len(publish))):
                    group.create_task(self._publish_next(items))
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    def _delete_all(self, paths: Iterable[str]) -> None:
        for path in paths:
            try:
                self.work.deleted += self._target.delete(path, self._fence)
            except OSError as error:
                self.work.fail_on_disk(path, error)

    def _is_done(self, path: str, entry: Entry) -> bool:
        held = self._target.managed.files.get(path)
        return held is not None and held.etag == entry.etag and path not in self._damaged

    async def _publish_next(self, items: Iterator[tuple[str, Entry]]) -> None:
        for path, entry in items:
            try:
                if path in self._blocked and self._target.is_blocked(path, self._is_wanted):
                    raise Blocked
                if self._may_hold(path, entry) and self._target.holds(path, entry):
                    self._target.adopt(path, entry, self._fence)
                    is_published = False
                else:
                    is_published = await self._publish(path, entry)
                self.work.succeed(is_published=is_published, is_healed=path in self._damaged)
            except ObjectMoved:
                self.work.moved.append(entry.key)
            except Blocked:
                self.work.blocked.add(path)
            except ObjectError as error:
                self.work.fail(path, error)
            except WireError as error:
                if error.reason not in OF_THE_ENDPOINT:
                    raise
                self.work.fail(path, error)
            except OSError as error:
                self.work.fail_on_disk(path, error)

    def _is_wanted(self, path: str) -> bool:
        return path in self._wanted

    def _may_hold(self, path: str, entry: Entry) -> bool:
        """
        Whether a look at the disk may save the download: unknown or damaged, and an MD5 to tell.
        """
        is_unsure = path in self._damaged or path not in self._target.managed.files
        return is_unsure and MD5_HEX.fullmatch(entry.etag) is not None

    async def _publish(self, path: str, entry: Entry) -> bool:
        download = Download(entry.key, entry.size_bytes, self._target.open_staging)
        try:
            await self._load(entry, download)
            return self._target.publish(path, entry, download, self._fence, self._is_wanted)
        finally:
            if download.staging is not None:
                self._target.discard(download.staging)

    async def _load(self, entry: Entry, download: Download) -> None:
        """
        Download and verify; twice where only an ETag speaks against the content.

        Gateways exist whose ETags look like an MD5 and are none. Two equal downloads are no
        accident of the network. A store that has shown this, and never a real MD5, is not asked
        twice again.
        """
        suspect = ""
        while True:
            headers = await self._client.get_object(
                entry.key, entry.etag, entry.size_bytes, download
            )
            self.work.downloaded_bytes += download.size_bytes
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
