"""
Carrying out a plan: publish new and changed files, then delete; effects only through the target.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from s3_sync.client import S3Client
from s3_sync.download import Download
from s3_sync.listing import Entry, Listing
from s3_sync.plan import Plan
from s3_sync.refusals import ObjectError, ObjectMoved
from s3_sync.target import Blocked, Target
from s3_sync.wire import WireError
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.logs import get_logger

CONNECTIONS = 16
# This many failures in a row, without a success in between, are the source's and not theirs.
FAILURE_STREAK = 8
DENIED_STREAK = 64
NAMED_FAILURES = 20
# What the wire does to one object; everything else it does to all.
PER_OBJECT = {"request_timeout", "connection_lost", "server_error"}

_LIKE_MD5 = re.compile(r"[0-9a-f]{32}")

log = get_logger("apply")


@dataclass(slots=True)
class Work:
    """
    What was done, and what went wrong with single objects.

    Args:
        moved: Objects that changed since they were listed.
        blocked: Paths where something of somebody else is in the way.
    """

    published: int = 0
    adopted: int = 0
    deleted: int = 0
    healed: int = 0
    downloaded_bytes: int = 0
    moved: int = 0
    blocked: set[str] = field(default_factory=set)
    errors: list[SidecarError] = field(default_factory=list)
    streak: int = 0

    @property
    def is_complete(self) -> bool:
        return not self.errors and not self.moved

    def fail(self, error: SidecarError, key: str) -> None:
        """
        Note the failure of one object.

        Raises:
            SidecarError: It is one too many in a row.
        """
        self.errors.append(error)
        if len(self.errors) <= NAMED_FAILURES:
            log.warning("object_failed", key=key, reason=error.reason, error=error.message)
        self.streak += 1
        limit = DENIED_STREAK if error.reason == "access_denied" else FAILURE_STREAK
        if self.streak >= limit:
            raise error


class Applier:
    """
    Carries out one plan.

    Args:
        damaged: Managed paths that somebody changed on disk.
        blocked: Paths that were blocked the last time.
    """

    def __init__(
        self,
        client: S3Client,
        target: Target,
        listing: Listing,
        fence: Fence,
        damaged: Collection[str],
        blocked: Collection[str],
    ) -> None:
        self._client = client
        self._target = target
        self._wanted = listing.wanted
        self._fence = fence
        self._damaged = damaged
        self._blocked = blocked
        self.work = Work()

    async def apply(self, plan: Plan) -> None:
        """
        Do what the plan says; deletions only when every publish succeeded.

        Raises:
            SidecarError: The source or the endpoint fails as a whole.
            OSError: The target fails.
            CycleAbandoned: The fence was revoked.
        """
        items = iter(plan.publish)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(CONNECTIONS, len(plan.publish))):
                    group.create_task(self._publish_next(items))
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        if self.work.is_complete:
            for path in plan.delete:
                self.work.deleted += self._target.delete(path, self._fence)

    async def _publish_next(self, items: Iterator[tuple[str, Entry]]) -> None:
        for path, entry in items:
            if path in self._blocked and self._target.is_blocked(path, self._is_wanted):
                self.work.blocked.add(path)
                continue
            if self._may_hold(path, entry) and self._target.holds(path, entry):
                self._target.adopt(path, entry, self._fence)
                self.work.adopted += 1
                self.work.healed += path in self._damaged
                continue
            await self._publish(path, entry)

    def _is_wanted(self, path: str) -> bool:
        return path in self._wanted

    def _may_hold(self, path: str, entry: Entry) -> bool:
        """
        Whether a look at the disk may save the download: unknown or damaged, and an MD5 to tell.
        """
        is_unsure = path in self._damaged or path not in self._target.managed.files
        return is_unsure and _LIKE_MD5.fullmatch(entry.etag) is not None

    async def _publish(self, path: str, entry: Entry) -> None:
        work = self.work
        download = Download(entry.key, entry.size_bytes, self._target.open_staging)
        try:
            await self._load(entry, download)
            if self._target.publish(path, entry, download, self._fence, self._is_wanted):
                work.published += 1
            else:
                work.adopted += 1
            work.healed += path in self._damaged
            work.streak = 0
        except ObjectMoved:
            work.moved += 1
        except Blocked:
            work.blocked.add(path)
        except ObjectError as error:
            work.fail(error, entry.key)
        except WireError as error:
            if error.reason not in PER_OBJECT:
                raise
            work.fail(error, entry.key)
        finally:
            if download.staging is not None:
                self._target.discard(download.staging)

    async def _load(self, entry: Entry, download: Download) -> None:
        """
        Download and verify; twice where only an ETag speaks against the content.

        Gateways exist whose ETags look like an MD5 and are none. Two equal downloads are no
        accident of the network.
        """
        suspect = ""
        while True:
            headers = await self._client.get_object(
                entry.key, entry.etag, entry.size_bytes, download
            )
            self.work.downloaded_bytes += download.size_bytes
            if download.is_proven(headers, entry.etag):
                return
            md5 = download.md5()
            if md5 == suspect:
                log.info("etag_not_md5", key=entry.key, etag=entry.etag)
                return
            if suspect:
                raise download.corrupt(f"two downloads differ, and neither is {entry.etag}")
            suspect = md5
