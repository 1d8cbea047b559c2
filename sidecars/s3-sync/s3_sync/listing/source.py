"""
The source ``listing``: all that is listed under the prefix, an object a file.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from datetime import datetime
from email.utils import parsedate_to_datetime

from s3_sync.keys import compile_filter
from s3_sync.listing.apply import ListingApplier
from s3_sync.listing.entries import Entry, Listing
from s3_sync.listing.failures import Failures
from s3_sync.listing.lister import Lister
from s3_sync.listing.settle import Settle
from s3_sync.result import CycleResult
from s3_sync.s3.client import S3Client
from s3_sync.s3.refusals import SourceError
from s3_sync.settings import Settings
from s3_sync.source import Order, State
from sidecar_runtime.fence import Fence

# A listing that is outdated whenever it is read is not a busy bucket but a server at odds with
# itself.
MOVED_CYCLES = 3


class ListingSource:
    """
    The listing of a prefix.
    """

    was_reached = False

    def __init__(self, settings: Settings, client: S3Client) -> None:
        self._settings = settings
        self._client = client
        self._lister = Lister(
            client.list_page,
            settings.prefix,
            compile_filter(settings.include, settings.exclude),
            len(settings.dest_path.encode()),
        )
        self._settle = Settle(settings.settle_seconds)
        self._newest = ""
        self._failures = Failures()
        self._moved_cycles = 0

    @property
    def late(self) -> Collection[str]:
        return self._failures.paths

    async def look(self, fence: Fence) -> Listing:
        self._client.begin_cycle(fence)
        listing = await self._lister.read()
        if not listing.wanted and not self._settings.allow_empty:
            raise SourceError(
                "source_empty",
                f"there is no file to sync under {self._settings.source}",
                "Check KEY_PATH for a typo. Nothing was deleted. If the folder is meant to be "
                "empty, set S3_SYNC_ALLOW_EMPTY=true.",
            )
        self._newest = listing.newest
        return listing

    def is_settled(self, state: State[Entry], published: str) -> bool:
        return self._settle.is_settled(
            state.revision, published=published, quiet_seconds=self._quiet_seconds()
        )

    async def confirms_deletions(self, state: State[Entry], fence: Fence) -> bool:
        """
        List again: a store, or what is in between, can lose a page once, and a deletion is not
        undone so easily.
        """
        again = await self.look(fence)
        return again.revision == state.revision

    async def bring(self, order: Order[Entry]) -> None:
        if not order.is_hidden:
            order.result.given_up = self._failures.given_up(order.state.wanted)
        try:
            await ListingApplier(self._client, order).apply()
        finally:
            self._failures.note(order.result.failed)

    def judge(self, result: CycleResult) -> None:
        self._moved_cycles = self._moved_cycles + 1 if result.moved else 0
        if result.moved and (self._settings.one_shot or self._moved_cycles >= MOVED_CYCLES):
            raise SourceError(
                "source_changing",
                f"{len(result.moved)} objects changed while they were listed and read, "
                f"such as {result.moved[0]!r}",
                "Nothing but these is behind. If it persists, the server's listing and its "
                "objects disagree about ETags.",
            )

    def glance(self) -> bool:
        return False

    def close(self) -> None:
        self._client.close()

    def _quiet_seconds(self) -> float:
        """
        Return for how long no object has been written, by the source's own clock.
        """
        with suppress(ValueError, TypeError):
            now = parsedate_to_datetime(self._client.listed_at)
            newest = datetime.fromisoformat(self._newest)
            return max(0.0, (now - newest).total_seconds())
        return 0.0
