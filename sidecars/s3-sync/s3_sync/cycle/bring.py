"""
Brings the tree up to date with a state of the source, except files that cannot be read.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from s3_sync.cycle.deletions import DeletionBrake
from s3_sync.cycle.unread import Unread
from s3_sync.digest import Content
from s3_sync.layouts.layout import Layout
from s3_sync.lease import Lease
from s3_sync.metrics import SyncMetrics
from s3_sync.plan import Plan, make_plan
from s3_sync.result import Changes, CycleResult
from s3_sync.s3.refusals import ObjectError
from s3_sync.settings import Settings
from s3_sync.source import Order, Source, State
from s3_sync.tree.journal import Managed
from s3_sync.tree.published import UNFINISHED
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.volume.errors import FULL_ERRORS, TargetError


class Bringer:
    """
    Brings the tree of a layout up to date with one source, in each cycle.

    Attributes:
        blocked: Paths that another owner's file blocked the last time.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: SyncMetrics,
        lease: Lease,
        source: Source[Any],
        unread: Unread,
        brake: DeletionBrake,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._lease = lease
        self._source = source
        self._unread = unread
        self._brake = brake
        # New paths of moved files by old path; an old file stays while its new path is unreadable.
        self._awaited: dict[str, str] = {}
        self._is_new = True
        # Whether files of the current plan are already visible; changes of interrupted plans.
        self._is_begun = False
        self._interrupted = Changes()
        self.blocked: set[str] = set()

    async def bring(self, layout: Layout, state: State[Any], fence: Fence) -> CycleResult:
        """
        Bring the tree up to date with the state, except files that cannot be read.

        Raises:
            TargetError: An entry that blocks a path in s3-sync's own tree cannot be removed.
        """
        result = await self._try(layout, state, fence)
        if not (layout.is_atomic and result.blocked):
            return result
        for path in layout.tree.foreign():
            layout.tree.delete(path, fence)
        result = await self._try(layout, state, fence)
        for path in result.blocked:
            raise TargetError(
                "target_failed",
                f"an entry at {path!r} in .s3-sync is in the way and cannot be removed",
                "Remove it as its owner. Only s3-sync should write to .s3-sync.",
            )
        return result

    async def _try(self, layout: Layout, state: State[Any], fence: Fence) -> CycleResult:
        plan = self._plan(layout, state, fence)
        unsure: dict[str, SidecarError] = {}
        if plan.delete:
            gone = {*await self._source.still_gone(plan.delete, fence), *state.kept}
            unsure = {path: _unsure(path) for path in plan.delete if path not in gone}
            plan = plan._replace(delete=tuple(path for path in plan.delete if path in gone))
        plan = self._spare(layout, state, plan)
        order = self._order(layout, state, plan, fence)
        result, is_done, self._is_begun = order.result, False, False
        try:
            await self._source.bring(order)
            is_done = True
            if self._source.is_divisible:
                news = result.failed.keys() | self._unread.errors.keys()
                tried = [path for path in plan.publish if path in news]
                self._unread.note({path: state.wanted[path] for path in tried}, result.failed)
        except SidecarError:
            if self._source.is_divisible:  # files that failed are tried last the next time
                failed = {
                    path: state.wanted[path] for path in plan.publish if path in result.failed
                }
                self._unread.note(failed, result.failed)
            raise
        finally:
            if layout.is_atomic:
                self._metrics.downloaded.inc(result.downloaded_bytes)
            else:
                count(self._metrics, result)
            if not fence.is_revoked:
                layout.tree.end_cycle(fence)
                if not layout.is_atomic:
                    if self._interrupted:
                        result.changes = result.changes.after(self._interrupted)
                    self._interrupted = Changes() if is_done else result.changes
                    if self._is_begun and not is_done:
                        with suppress(OSError):  # the previous record is true as well
                            self._mark(layout, state, plan, fence)
        self._lease.look_again(layout)
        if self._source.is_divisible:
            result.missing = {**self._unread.errors, **unsure}
        return result

    def _spare(self, layout: Layout, state: State[Any], plan: Plan) -> Plan:
        """
        Keep moved files whose new path could not be read and is not tried in this cycle.
        """
        gone, published = set(plan.delete), self._lease.published
        before = {path: place for path, place in self._awaited.items() if path in gone}
        # A new process does not know which moves the previous one has spared.
        is_resumed, self._is_new = self._is_new and published.missing > 0, False
        if gone and layout.shown is not None and published.at is not None:
            shown = layout.shown.managed.files
            before |= self._brake.awaited(state.wanted, shown, is_resumed=is_resumed)
        self._awaited = before
        if not self._awaited:
            return plan
        resting = self._unread.errors.keys() - set(plan.publish)
        kept = {path for path, place in self._awaited.items() if place in resting}
        return plan._replace(delete=tuple(path for path in plan.delete if path not in kept))

    def _plan(self, layout: Layout, state: State[Any], fence: Fence) -> Plan:
        tree, damaged = layout.tree, self._damaged(layout)
        may_delete = self._settings.delete != "none"
        # Before the first publish, the files on disk may belong to another source.
        kept = state.kept if self._lease.published.at is not None else ()
        for path in damaged - state.wanted.keys():
            if path in kept or not may_delete:  # lost: it cannot be downloaded again
                tree.forget(path, fence)
        plan = make_plan(
            state.wanted,
            tree.managed.files,
            kept=kept,
            damaged=damaged.union(self._source.suspects(tree)),
            foreign=tree.foreign() if self._settings.delete == "all" else (),
            last=self._unread.errors,
            may_delete=may_delete,
        )
        if not self._unread.errors:
            return plan
        self._unread.keep(set(plan.publish))
        resting = self._unread.resting()
        return plan._replace(publish=tuple(path for path in plan.publish if path not in resting))

    async def heal(self, layout: Layout, state: State[Any], fence: Fence) -> None:
        """
        Restore damaged files that the waiting change does not replace.
        """
        files = layout.tree.managed.files
        same = tuple(
            path
            for path in self._damaged(layout)
            if (entry := state.wanted.get(path)) and _is_held(files.get(path), entry)
        )
        if same:
            order = self._order(layout, state, Plan(same, ()), fence)
            await self._source.bring(order)
            count(self._metrics, order.result)
            self._lease.look_again(layout)
            self._lease.repair(layout, fence)

    def _begin(self, layout: Layout, state: State[Any], plan: Plan, fence: Fence) -> None:
        """
        Note that consumers see neither the old nor the new state from now on.

        A change of a single file needs no note: it is replaced in one step.
        """
        if not self._source.is_divisible:
            layout.begin(state.revision, fence)
        elif not self._is_begun:
            try:
                self._mark(layout, state, plan, fence)
            except OSError as error:
                if error.errno not in FULL_ERRORS or not plan.delete:
                    raise
                return  # deletions make room; the next change tries again
            self._is_begun = True

    def _mark(self, layout: Layout, state: State[Any], plan: Plan, fence: Fence) -> None:
        """
        Record how many changes of a plan are missing while consumers see it partially applied.
        """
        published, files = self._lease.published, layout.tree.managed.files
        if layout.is_atomic or published.at is None:
            return
        missing = sum(path in files for path in plan.delete) + sum(
            not _is_held(files.get(path), state.wanted[path]) for path in plan.publish
        )
        if missing > 1 or (missing and published.name == UNFINISHED):
            self._lease.record(
                layout, fence, Changes(), name=UNFINISHED, aim=state.revision, missing=missing
            )

    def _damaged(self, layout: Layout) -> set[str]:
        return self._lease.torn if layout.is_atomic else self._lease.damaged

    def _order(self, layout: Layout, state: State[Any], plan: Plan, fence: Fence) -> Order[Any]:
        return Order(
            state,
            plan,
            layout.tree,
            fence,
            damaged=self._damaged(layout),
            blocked=self.blocked,
            begin=lambda: self._begin(layout, state, plan, fence),
            awaited=self._awaited,
            result=CycleResult(before=self._unread.errors),
        )


def count(metrics: SyncMetrics, result: CycleResult) -> None:
    """
    Add the result to the counters.
    """
    metrics.published.inc(result.published)
    metrics.deleted.inc(result.deleted)
    metrics.healed.inc(result.healed)
    metrics.downloaded.inc(result.downloaded_bytes)


def _is_held(held: Managed | None, wanted: Content) -> bool:
    return held is not None and (held.etag, held.size_bytes) == (wanted.etag, wanted.size_bytes)


def _unsure(path: str) -> ObjectError:
    return ObjectError(
        "object_changing",
        f"{path!r} is missing from one listing but not from the next",
        "This resolves itself once the writer has finished.",
    )
