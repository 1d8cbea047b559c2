"""
One cycle: lock → scan → list → plan → apply → record.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Iterator, Mapping

from s3_sync.apply import Applier, Work
from s3_sync.board import Board
from s3_sync.client import S3Client
from s3_sync.credentials import Chain
from s3_sync.keys import compile_filter
from s3_sync.listing import Lister, Listing
from s3_sync.metrics import SKIP_REASONS, SyncMetrics
from s3_sync.plan import Plan, make_plan
from s3_sync.published import Published
from s3_sync.refusals import SourceError
from s3_sync.settings import Settings
from s3_sync.target import Target, read_target
from s3_sync.volume import explain_os_error, open_folders
from sidecar_runtime.fence import Fence
from sidecar_runtime.health import Outcome
from sidecar_runtime.logs import get_logger
from sidecar_runtime.publish import TargetLock, read_holder

LOCK = "lock"
# A look at every file costs more than asking S3 at 10,000 files, so it is spread over cycles.
SCAN_FILES = 500
SCAN_CYCLES = 10
# A listing that is outdated whenever it is read is not a busy bucket but a server at odds with
# itself.
MOVED_CYCLES = 3
# After so many failed cycles in a row nothing waits for a path any more.
FAILED_CYCLES = 3
NAMED_KEYS = 50

log = get_logger("cycle")


class Session:
    """
    What belongs to the thread that runs cycles: event loop, connections, open target.
    """

    def __init__(
        self, settings: Settings, metrics: SyncMetrics, lock: TargetLock, board: Board
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._lock = lock
        self._board = board
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
        self._target: Target | None = None
        self._published = Published(settings.source)
        self._scan: Iterator[str] = iter(())
        self._damaged: set[str] = set()
        self._blocked: set[str] = set()
        self._failures: dict[str, int] = {}
        self._synced: Listing | None = None
        self._moved_cycles = 0
        self._named: set[str] = set()
        self._holder: Mapping[str, object] | None = None

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
        self._close_target()
        self._loop.close()

    async def _cycle(self, fence: Fence) -> Outcome:
        if self._settings.dry_run:
            return await self._rehearse(fence)
        try:
            with fence:  # a thread that comes back late must not touch its successor's target
                target = self._open_target()
        except OSError as error:
            raise explain_os_error(error, f"cannot open {self._settings.dest_path}") from error
        if target is None:
            return Outcome("waiting", counts={"holder": _name(self._holder or {})})
        try:
            self._look(target)
            return await self._reconcile(target, fence)
        except OSError as error:
            raise explain_os_error(error, f"cannot write to {target.path}") from error
        finally:
            if not fence.is_revoked:
                self._show(target)

    async def _reconcile(self, target: Target, fence: Fence) -> Outcome:
        listing = await self._list(fence)
        is_settled = not (self._damaged or self._blocked or self._settings.delete == "all")
        if listing is self._synced and is_settled:
            return Outcome("unchanged", listing.revision)
        self._synced = None
        applier = Applier(
            self._client,
            target,
            listing,
            fence,
            damaged=self._damaged,
            blocked=self._blocked,
            given_up=self._given_up(listing),
        )
        work = applier.work
        try:
            await applier.apply(self._plan(target, listing, fence))
        finally:
            self._count(target, work)
            self._note_failures(work)
            if not fence.is_revoked:
                target.end_cycle(fence)
        self._damaged = target.damaged(iter(self._damaged))
        self._blocked = work.blocked
        self._name_skipped(listing)
        is_changed = bool(work.published or work.adopted or work.deleted)
        if applier.is_complete and (is_changed or self._published.revision != listing.revision):
            self._published.record(target, listing.revision, fence)
        return self._settle(listing, work, is_changed)

    def _note_failures(self, work: Work) -> None:
        """
        Count for how many cycles in a row each path has failed, and name it the first time.
        """
        before, self._failures = self._failures, {}
        for path, error in work.failed.items():
            self._failures[path] = before.get(path, 0) + 1
            if path not in before and len(self._failures) <= NAMED_KEYS:
                log.warning("object_failed", path=path, reason=error.reason, error=error.message)

    def _given_up(self, listing: Listing) -> set[str]:
        """
        Return the paths that nothing waits for any more.

        One object that cannot be read must not keep deleted DAGs alive, or pods from starting,
        for ever. Where all fail it is not the objects.
        """
        stubborn = {path for path, times in self._failures.items() if times >= FAILED_CYCLES}
        return stubborn if len(stubborn) < len(listing.wanted) else set()

    # --- the target

    def _open_target(self) -> Target | None:
        """
        Return the target, ours alone; None while another process owns it.
        """
        if self._target is not None and not self._target.is_current():
            self._close_target()
        root, state = open_folders(self._settings.dest_path)
        try:
            if not self._lock.try_acquire(LOCK, state):
                self._close_target()
                self._wait(state)
                return None
            if self._target is None:
                self._target = Target(
                    self._settings.dest_path,
                    file_mode=self._settings.file_mode,
                    fsync=self._settings.fsync,
                )
                self._published.read(state)
                self._scan = iter(())
                self._damaged = self._target.damaged(iter(self._target.managed.files))
                self._synced = None
                log.info("target_acquired", managed_files=len(self._target.managed.files))
                # What a predecessor published is ready before S3 has said a word.
                self._show(self._target)
                at = self._published.at
                self._metrics.managed.set(len(self._target.managed.files))
                self._metrics.last_publish.set(at or 0)
        finally:
            os.close(state)
            os.close(root)
        self._holder = None
        return self._target

    def _close_target(self) -> None:
        if self._target is not None:
            self._target.close()
            self._target = None
            self._damaged = set()

    def _wait(self, state: int) -> None:
        """
        Stand by: ready if what the other process publishes is there.
        """
        holder = read_holder(LOCK, state)
        if holder != self._holder:
            log.info("target_waiting", holder=_name(holder))
            self._holder = holder
        self._published.read(state)
        self._board.readiness = self._published.readiness(self._damaged)
        self._board.show(waiting_for=_name(holder))

    def _look(self, target: Target) -> None:
        """
        Compare the next slice of published files with the disk.
        """
        files = target.managed.files
        size = max(SCAN_FILES, -(-len(files) // SCAN_CYCLES))
        paths = list(itertools.islice(self._scan, size))
        if len(paths) < size:
            self._scan = iter(list(files))
            paths += itertools.islice(self._scan, size - len(paths))
        self._damaged |= target.damaged(iter(paths))

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

    def _plan(self, target: Target, listing: Listing, fence: Fence) -> Plan:
        may_delete = self._settings.delete != "none"
        if not may_delete:
            # Kept although its key is gone, and now lost: there is nothing to put back.
            for path in self._damaged - listing.wanted.keys():
                target.forget(path, fence)
        foreign = target.foreign() if self._settings.delete == "all" else []
        return make_plan(
            listing.wanted,
            target.managed.files,
            damaged=self._damaged,
            foreign=foreign,
            last=self._failures,
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

    def _settle(self, listing: Listing, work: Work, is_changed: bool) -> Outcome:
        if work.failed:
            error = next(iter(work.failed.values()))
            if len(work.failed) > 1:
                error.message += f"; {len(work.failed) - 1} more files failed"
            raise error
        self._moved_cycles = self._moved_cycles + 1 if work.moved else 0
        if work.moved and (self._settings.one_shot or self._moved_cycles >= MOVED_CYCLES):
            raise SourceError(
                "source_changing",
                f"{len(work.moved)} objects changed between the listing and their download, "
                f"such as {work.moved[0]!r}",
                "Nothing but these is behind. If it persists, the server's listing and its "
                "objects disagree about ETags.",
            )
        if not work.moved:
            self._synced = listing
        return Outcome(
            "changed" if is_changed else "unchanged",
            listing.revision,
            {
                "files_published": work.published,
                "files_deleted": work.deleted,
                "files_healed": work.healed,
                "files_adopted": work.adopted,
                "files_moved": len(work.moved),
                "keys_skipped": len(listing.skipped) + len(work.blocked),
                "downloaded_bytes": work.downloaded_bytes,
            },
        )

    def _count(self, target: Target, work: Work) -> None:
        self._metrics.published.inc(work.published)
        self._metrics.deleted.inc(work.deleted)
        self._metrics.healed.inc(work.healed)
        self._metrics.downloaded.inc(work.downloaded_bytes)
        self._metrics.managed.set(len(target.managed.files))

    def _show(self, target: Target) -> None:
        self._board.readiness = self._published.readiness(self._damaged)
        self._board.show(
            waiting_for=[],
            managed_files=len(target.managed.files),
            damaged_files=sorted(self._damaged)[:NAMED_KEYS],
        )

    async def _rehearse(self, fence: Fence) -> Outcome:
        """
        Say what a cycle would do (``S3_SYNC_DRY_RUN``); touches nothing.
        """
        listing = await self._list(fence)
        managed, foreign = read_target(
            self._settings.dest_path, with_foreign=self._settings.delete == "all"
        )
        plan = make_plan(
            listing.wanted,
            managed,
            damaged=(),
            foreign=foreign,
            last=(),
            may_delete=self._settings.delete != "none",
        )
        if listing is not self._synced:
            log.info(
                "plan_made",
                revision=listing.revision,
                files_to_publish=len(plan.publish),
                files_to_delete=len(plan.delete),
                publish=[path for path, _ in plan.publish[:NAMED_KEYS]],
                delete=list(plan.delete[:NAMED_KEYS]),
            )
            self._name_skipped(listing)
            self._synced = listing
        return Outcome("unchanged", listing.revision)


def _name(holder: Mapping[str, object]) -> str:
    return f"pid {holder.get('pid')} on {holder.get('host')}"
