"""
One cycle: lock → scan → list → plan → apply → gate → publish → record.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from email.utils import parsedate_to_datetime

from s3_sync.apply import Applier, Work
from s3_sync.board import Board
from s3_sync.client import S3Client
from s3_sync.failures import Failures
from s3_sync.hold import Hold
from s3_sync.keys import compile_filter
from s3_sync.layouts import Layout, tree_part
from s3_sync.listing import Entry, Lister, Listing
from s3_sync.metrics import SKIP_REASONS, SyncMetrics
from s3_sync.plan import Plan, make_plan
from s3_sync.refusals import SourceError
from s3_sync.settings import Settings
from s3_sync.settle import Settle
from s3_sync.target import Target, Torn, read_target
from s3_sync.volume import TargetError, explain_os_error
from sidecar_runtime.aws_credentials import Chain
from sidecar_runtime.fence import Fence
from sidecar_runtime.gate import Gate, RevisionRefused
from sidecar_runtime.health import Outcome
from sidecar_runtime.logs import get_logger
from sidecar_runtime.publish import TargetLock

# A listing that is outdated whenever it is read is not a busy bucket but a server at odds with
# itself.
MOVED_CYCLES = 3
NAMED_KEYS = 50

log = get_logger("cycle")


class Session:
    """
    What belongs to the thread that runs cycles: event loop, connections, open target.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: SyncMetrics,
        lock: TargetLock,
        board: Board,
        gate: Gate | None,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._board = board
        self._gate = gate
        self._hold = Hold(settings, metrics, lock, board)
        self._loop = asyncio.new_event_loop()
        self._client = S3Client(
            settings.bucket,
            settings.prefix,
            Chain(),
            lambda operation: self._metrics.requests[operation].inc(),
        )
        self._lister = Lister(
            self._client.list_page,
            settings.prefix,
            compile_filter(settings.include, settings.exclude),
            len(settings.dest_path.encode()),
        )
        self._settle = Settle(settings.settle_seconds)
        self._layout: Layout | None = None
        self._blocked: set[str] = set()
        self._failures = Failures()
        # The listing that was acted upon last, and what a cycle says while nothing is different.
        self._acted: Listing | None = None
        self._rest: Outcome | None = None
        self._moved_cycles = 0
        self._named: set[str] = set()

    def cycle(self, fence: Fence) -> Outcome:
        """
        Run one cycle.

        Raises:
            SidecarError: What failed; everything that was published before stays.
            CycleAbandoned: The fence was revoked.
        """
        task = self._loop.create_task(self._cycle(fence))
        fence.on_revoke(lambda: self._loop.call_soon_threadsafe(task.cancel))
        return self._loop.run_until_complete(task)

    def close(self) -> None:
        """
        Close connections, files and the event loop; the lock stays with the process.
        """
        self._client.close()
        self._hold.close()
        self._loop.close()

    async def _cycle(self, fence: Fence) -> Outcome:
        if self._settings.dry_run:
            return await self._rehearse(fence)
        path = self._settings.dest_path
        try:
            with fence:  # a thread that comes back late must not touch its successor's target
                layout = self._hold.acquire()
        except OSError as error:
            raise explain_os_error(error, f"cannot open {path}", path) from error
        if layout is not self._layout:
            self._layout, self._acted, self._rest = layout, None, None
        if layout is None:
            return Outcome("waiting", counts={"holder": self._hold.holder})
        try:
            layout.prune(fence)
            self._hold.look(layout)
            return await self._reconcile(layout, fence)
        except Torn as torn:
            self._hold.torn = layout.tree.damaged(iter(layout.tree.managed.files))
            raise TargetError(
                "target_failed",
                f"somebody changed {torn.args[0]!r} in .s3-sync while it was to be published",
                "What is published stays. Find out who writes there: it is s3-sync's own.",
            ) from None
        except OSError as error:
            raise explain_os_error(error, f"cannot write to {path}", path) from error
        finally:
            if not fence.is_revoked:
                self._hold.show(layout)

    async def _reconcile(self, layout: Layout, fence: Fence) -> Outcome:
        mended = self._hold.mend(layout, fence)
        listing = await self._list(fence)
        published = self._hold.published.revision
        if self._settle.is_settled(
            listing.revision, published=published, quiet_seconds=self._quiet_seconds(listing)
        ):
            return await self._act(layout, listing, mended, fence)
        if self._acted is not None:
            await self._heal(layout, self._acted, listing, fence)
        return Outcome("settling", published)

    async def _heal(self, layout: Layout, acted: Listing, listing: Listing, fence: Fence) -> None:
        """
        Put back what is damaged while a change comes to rest, as far as it is not part of it.
        """
        damaged = self._hold.torn if layout.is_atomic else self._hold.damaged
        same = tuple(
            (path, entry)
            for path in damaged
            if (entry := listing.wanted.get(path)) and acted.wanted.get(path) == entry
        )
        if same:
            applier = self._applier(layout, acted, fence)
            await applier.apply(Plan(same, ()))
            self._count(applier.work)
            self._hold.look_again(layout)
            self._hold.mend(layout, fence)

    async def _act(self, layout: Layout, listing: Listing, done: Work, fence: Fence) -> Outcome:
        """
        Bring the tree up to date with a listing, and publish it.

        Args:
            done: What was mended before.
        """
        if (
            listing is self._acted
            and self._rest
            and not (done.healed or self._is_disturbed(layout))
        ):
            return self._rest
        self._acted, self._rest = listing, None
        applier = await self._apply(layout, listing, fence)
        if layout.is_atomic and applier.work.blocked:
            # The tree is ours alone: what stands in the way goes, or the revision were not whole.
            for path in layout.tree.foreign():
                layout.tree.delete(path, fence)
            applier = await self._apply(layout, listing, fence)
            for path in applier.work.blocked:
                raise TargetError(
                    "target_failed",
                    f"something that cannot be removed is at {path!r} in .s3-sync",
                    "Look at it as its owner; .s3-sync is s3-sync's own.",
                )
        is_complete = applier.is_complete and not self._hold.torn
        refusal = None
        is_shown = False
        if layout.is_atomic:
            done.add(self._hold.mend(layout, fence))
            refusal = self._judge(layout, listing, fence) if is_complete else None
            is_complete = is_complete and not self._hold.torn
            if is_complete and not refusal and not layout.shows(listing.revision):
                done.add(layout.publish(listing.revision, fence))
                is_shown = True
            is_complete = is_complete and not done.failed
            if layout.shown is not None:
                layout.shown.end_cycle(fence)
            self._count(replace(done, healed=0))  # those are counted as they are mended
            done.take_over(applier.work)
        else:
            done = applier.work
        self._hold.look_again(layout)
        self._blocked = done.blocked
        self._name_skipped(listing)
        if is_complete:
            self._board.show(refused=refusal.facts() if refusal else {})
        is_news = listing.revision != self._hold.published.revision
        is_changed = (is_shown and is_news) or bool(
            done.published or done.adopted or done.deleted or done.healed
        )
        if is_complete and not refusal:
            if is_changed or is_news:
                self._hold.record(layout, listing.revision, fence)
            layout.clear_others(fence)
        return self._conclude(layout, listing, done, is_changed, refusal)

    def _is_disturbed(self, layout: Layout) -> bool:
        """
        Whether there is something to do although the source is the same.
        """
        return bool(
            layout.shown is None
            or self._hold.damaged
            or self._hold.torn
            or self._blocked
            or self._settings.delete == "all"
        )

    async def _apply(self, layout: Layout, listing: Listing, fence: Fence) -> Applier:
        """
        Bring the tree up to date with the listing.
        """
        tree = layout.tree
        damaged = self._hold.torn if layout.is_atomic else self._hold.damaged
        plan = self._plan(tree, listing, damaged, fence)
        unsure = await self._unsure(plan, listing, fence)
        applier = self._applier(layout, listing, fence)
        applier.work.moved += unsure
        try:
            await applier.apply(replace(plan, delete=()) if unsure else plan)
        finally:
            if layout.is_atomic:
                self._metrics.downloaded.inc(applier.work.downloaded_bytes)
            else:
                self._count(applier.work)
            self._failures.note(applier.work.failed)
            if not fence.is_revoked:
                tree.end_cycle(fence)
        self._hold.look_again(layout)
        return applier

    def _applier(self, layout: Layout, listing: Listing, fence: Fence) -> Applier:
        return Applier(
            self._client,
            layout.tree,
            listing,
            fence,
            damaged=self._hold.torn if layout.is_atomic else self._hold.damaged,
            blocked=self._blocked,
            given_up=() if layout.is_atomic else self._failures.given_up(listing.wanted),
        )

    async def _unsure(self, plan: Plan[Entry], listing: Listing, fence: Fence) -> list[str]:
        """
        Return the deletions that a second listing, right after the first, does not confirm.

        A store, or what lies between, can lose a page once; a deletion is not undone so easily.
        """
        if not any(path not in listing.wanted for path in plan.delete):
            return []
        again = await self._list(fence)
        return [] if again.revision == listing.revision else list(plan.delete)

    def _judge(self, layout: Layout, listing: Listing, fence: Fence) -> RevisionRefused | None:
        """
        Ask the gate about what consumers do not see yet.
        """
        if self._gate is None:
            return None
        if layout.shows(listing.revision):
            self._gate.rest()
            return None
        changed = [path for path, _ in layout.changes().publish]
        refusal = self._gate.judge(listing.revision, layout.tree.path, changed, fence)
        self._hold.look_at_all(layout)  # a command may have written to what it judged
        return refusal

    def _quiet_seconds(self, listing: Listing) -> float:
        """
        Return for how long no object has been written, by the source's own clock.
        """
        with suppress(ValueError, TypeError):
            now = parsedate_to_datetime(self._client.listed_at)
            newest = datetime.fromisoformat(listing.newest)
            return max(0.0, (now - newest).total_seconds())
        return 0.0

    # --- the source

    async def _list(self, fence: Fence) -> Listing:
        self._client.begin_cycle(fence)
        listing = await self._lister.read()
        if not listing.wanted and not self._settings.allow_empty:
            raise SourceError(
                "source_empty",
                f"there is no file to sync under {self._settings.source}",
                "Check KEY_PATH for a slip. Nothing was deleted. If the folder is meant to be "
                "empty, set S3_SYNC_ALLOW_EMPTY=true.",
            )
        return listing

    def _plan(self, tree: Target, listing: Listing, damaged: set[str], fence: Fence) -> Plan[Entry]:
        may_delete = self._settings.delete != "none"
        if not may_delete:
            # Kept although its key is gone, and now lost: there is nothing to put back.
            for path in damaged - listing.wanted.keys():
                tree.forget(path, fence)
        return make_plan(
            listing.wanted,
            tree.managed.files,
            damaged=damaged,
            foreign=tree.foreign() if self._settings.delete == "all" else (),
            last=self._failures.paths,
            may_delete=may_delete,
        )

    def _name_skipped(self, listing: Listing) -> None:
        """
        Count the keys that cannot become files, and name each once.
        """
        skipped = dict(listing.skipped)
        skipped.update((listing.wanted[path].key, "blocked") for path in self._blocked)
        for reason in SKIP_REASONS:
            count = sum(1 for found in skipped.values() if found == reason)
            self._metrics.skipped(reason).set(count)
        self._named &= skipped.keys()
        for key, reason in itertools.islice(skipped.items(), NAMED_KEYS):
            if key not in self._named:
                self._named.add(key)
                log.warning("key_skipped", key=key, reason=reason)
        self._board.show(
            keys_skipped={key: skipped[key] for key in itertools.islice(skipped, NAMED_KEYS)}
        )

    # --- the end

    def _conclude(
        self,
        layout: Layout,
        listing: Listing,
        work: Work,
        is_changed: bool,
        refusal: RevisionRefused | None,
    ) -> Outcome:
        if work.failed:
            error = next(iter(work.failed.values()))
            if len(work.failed) > 1:
                error.message += f"; {len(work.failed) - 1} more files failed"
            raise error
        self._moved_cycles = self._moved_cycles + 1 if work.moved else 0
        if work.moved and (self._settings.one_shot or self._moved_cycles >= MOVED_CYCLES):
            raise SourceError(
                "source_changing",
                f"{len(work.moved)} objects changed while they were listed and read, "
                f"such as {work.moved[0]!r}",
                "Nothing but these is behind. If it persists, the server's listing and its "
                "objects disagree about ETags.",
            )
        revision = self._hold.published.revision if layout.is_atomic else listing.revision
        counts: Mapping[str, int | str] = {
            "files_published": work.published,
            "files_deleted": work.deleted,
            "files_healed": work.healed,
            "files_adopted": work.adopted,
            "files_moved": len(work.moved),
            "keys_skipped": len(listing.skipped) + len(self._blocked),
            "downloaded_bytes": work.downloaded_bytes,
        }
        if refusal:
            self._rest = Outcome("refused", revision, refusal=refusal)
            return replace(self._rest, counts=counts)
        if layout.is_atomic and not refusal and listing.revision != revision:
            return Outcome("settling", revision, counts)
        if not work.moved:
            self._rest = Outcome("unchanged", revision)
        return Outcome("changed" if is_changed else "unchanged", revision, counts)

    def _count(self, work: Work) -> None:
        self._metrics.published.inc(work.published)
        self._metrics.deleted.inc(work.deleted)
        self._metrics.healed.inc(work.healed)
        self._metrics.downloaded.inc(work.downloaded_bytes)

    async def _rehearse(self, fence: Fence) -> Outcome:
        """
        Say what a cycle would do (``S3_SYNC_DRY_RUN``); touches nothing.
        """
        listing = await self._list(fence)
        path = self._settings.dest_path
        try:
            managed, foreign = read_target(
                path, tree_part(self._settings), with_foreign=self._settings.delete == "all"
            )
        except OSError as error:
            raise explain_os_error(error, f"cannot read {path}") from error
        plan = make_plan(
            listing.wanted,
            managed,
            damaged=(),
            foreign=foreign,
            last=(),
            may_delete=self._settings.delete != "none",
        )
        if listing is not self._acted:
            log.info(
                "plan_made",
                revision=listing.revision,
                files_to_publish=len(plan.publish),
                files_to_delete=len(plan.delete),
                publish=[path for path, _ in plan.publish[:NAMED_KEYS]],
                delete=list(plan.delete[:NAMED_KEYS]),
            )
            self._name_skipped(listing)
            self._acted = listing
        return Outcome("unchanged", listing.revision)
