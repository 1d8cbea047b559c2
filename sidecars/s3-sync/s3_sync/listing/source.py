"""
The source ``listing``: every object under the prefix becomes a file.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from datetime import datetime

from s3_sync.keys import compile_filter
from s3_sync.listing.apply import ListingApplier
from s3_sync.listing.entries import Entry, Listing
from s3_sync.listing.lister import Lister
from s3_sync.listing.settle import Settle
from s3_sync.listing.trust import EtagTrust
from s3_sync.s3.client import S3Client
from s3_sync.s3.refusals import SourceError
from s3_sync.settings import Settings
from s3_sync.source import Order, State
from s3_sync.tree.target import Target
from sidecar_runtime.fence import Fence


def open_lister(settings: Settings, client: S3Client) -> Lister:
    """
    Return the lister of the settings' prefix.
    """
    return Lister(
        client.list_page,
        settings.prefix,
        compile_filter(settings.include, settings.exclude),
        len(settings.dest_path.encode()),
        settings.max_keys,
    )


def source_empty(settings: Settings, listing: Listing) -> SourceError:
    """
    Return the error for a prefix without a file that passes the filters.
    """
    if "release" in listing.skipped.values():
        return SourceError(
            "source_empty",
            f"{settings.source} contains published releases, but no files to sync",
            "Set S3_SYNC_SOURCE=release to sync the releases, or set KEY_PATH to the DAG folder. "
            "Nothing was deleted.",
        )
    filters = " and the patterns of S3_SYNC_INCLUDE and S3_SYNC_EXCLUDE"
    return SourceError(
        "source_empty",
        f"{settings.source} contains no files to sync",
        f"Check KEY_PATH{filters if settings.include or settings.exclude else ''} for a typo. "
        "Nothing was deleted. If the folder is meant to be empty, set S3_SYNC_ALLOW_EMPTY=true.",
    )


class ListingSource:
    """
    A source that lists a prefix.
    """

    is_divisible = True

    def __init__(self, settings: Settings, client: S3Client) -> None:
        self._settings = settings
        self._client = client
        self._lister = open_lister(settings, client)
        self._settle = Settle(settings.settle_seconds)
        self._newest = ""
        self._trust: EtagTrust | None = None
        self._recalled: Target | None = None

    async def look(self, fence: Fence) -> Listing:
        self._client.begin_cycle(fence)
        if self._trust is None:
            self._trust = EtagTrust(self._settings.verify, is_aws=self._client.is_aws)
        self._settle.ask()
        listing = await self._lister.read()
        if not listing.wanted and not self._settings.allow_empty:
            raise source_empty(self._settings, listing)
        self._newest = listing.newest
        return listing

    def is_settled(self, state: State[Entry], published: str, *, is_first: bool) -> bool:
        is_asked = is_first and self._settings.settle_seconds > 0
        quiet_seconds = self._quiet_seconds() if is_asked else 0.0
        return self._settle.is_settled(
            state.wanted, is_published=state.revision == published, quiet_seconds=quiet_seconds
        )

    @property
    def unrest(self) -> SourceError | None:
        if not self._settle.disturber:
            return None
        return SourceError(
            "source_unsettled",
            "the listing does not stay unchanged for S3_SYNC_SETTLE: objects such as "
            f"{self._settle.disturber!r} keep changing",
            "The published files stay, and every change waits. Exclude objects that are written "
            "all the time with S3_SYNC_EXCLUDE, or lower S3_SYNC_SETTLE. A long upload needs no "
            "action.",
        )

    async def still_gone(self, paths: Collection[str], fence: Fence) -> Collection[str]:
        """
        List again, because a store or a proxy may lose a page once, and a deletion is hard to
        undo.
        """
        again = await self.look(fence)
        return [path for path in paths if path not in again.wanted and path not in again.kept]

    def suspects(self, tree: Target) -> Collection[str]:
        assert self._trust is not None
        if tree is not self._recalled:
            self._trust.recall(tree)
            self._recalled = tree
        return self._trust.suspects()

    async def bring(self, order: Order[Entry]) -> None:
        assert self._trust is not None
        self._trust.doubtful.intersection_update(order.state.wanted)
        await ListingApplier(self._client, order, self._trust).apply()

    def earlier(self) -> Mapping[str, Callable[[], Awaitable[State[Entry]]]]:
        return {}  # S3 lists only the current objects

    def close(self) -> None:
        self._client.close()

    def _quiet_seconds(self) -> float:
        """
        Return how long no object has been written, at least, in seconds of the source's clock.

        Its timestamps lack the fractions: the newest object may be almost a second younger than it
        looks. The time of the listing can only be later than it looks.
        """
        from email.utils import parsedate_to_datetime  # noqa: PLC0415 - 5 ms, and few wait

        with suppress(ValueError, TypeError):
            now = parsedate_to_datetime(self._client.listed_at)
            newest = datetime.fromisoformat(self._newest)
            return max(0.0, (now - newest).total_seconds() - 1)
        return 0.0
