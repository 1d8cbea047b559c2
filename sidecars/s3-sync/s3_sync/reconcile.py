"""
Reconcile: look at the source → plan → bring → gate → publish → record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from s3_sync.layouts.layout import Layout
from s3_sync.lease import Lease
from s3_sync.metrics import SyncMetrics
from s3_sync.plan import Plan, make_plan
from s3_sync.result import CycleResult
from s3_sync.settings import Settings
from s3_sync.skipped import Skipped
from s3_sync.source import Order, Source, State
from s3_sync.status import Status
from sidecar_runtime.fence import Fence
from sidecar_runtime.gate.gate import Gate, RevisionRefused
from sidecar_runtime.health import Outcome
from sidecar_runtime.volume.errors import TargetError


class Reconciler:
    """
    Reconciles one source with what is held, cycle for cycle.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: SyncMetrics,
        status: Status,
        gate: Gate | None,
        lease: Lease,
        source: Source[Any],
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._status = status
        self._gate = gate
        self._lease = lease
        self._source = source
        self._skipped = Skipped(metrics, status)
        self._blocked: set[str] = set()
        # The state that was acted upon last, and what a cycle says while nothing is different.
        self._acted: State[Any] | None = None
        self._rest: Outcome | None = None
        self._is_done = False

    @property
    def is_at_rest(self) -> bool:
        """
        Whether there is nothing to do while the source stays as it is.
        """
        return self._is_done and not (self._blocked or self._settings.delete == "all")

    def start_over(self) -> None:
        """
        Forget what was done to another layout.
        """
        self._acted, self._rest = None, None

    async def reconcile(self, layout: Layout, fence: Fence) -> Outcome:
        """
        Bring what consumers see up to date with the source.

        Raises:
            SidecarError: What failed; what was published before stays.
            Torn: Another process changed what was to be published.
            OSError: The volume fails.
            CycleAbandoned: The fence was revoked.
        """
        self._is_done = False
        repaired = self._lease.repair(layout, fence)
        state = await self._source.look(fence)
        published = self._lease.published.revision
        if self._source.is_settled(state, published):
            outcome = await self._act(layout, state, repaired, fence)
            self._is_done = outcome.is_success and self._rest is not None
            return outcome
        if self._acted is not None:
            await self._heal(layout, self._acted, state, fence)
        return Outcome("settling", published)

    async def _heal(
        self, layout: Layout, acted: State[Any], state: State[Any], fence: Fence
    ) -> None:
        """
        Put back what is damaged while a change comes to rest, as far as it is not part of it.
        """
        same = tuple(
            (path, entry)
            for path in self._damaged(layout)
            if (entry := state.wanted.get(path)) and acted.wanted.get(path) == entry
        )
        if same:
            order = self._order(layout, acted, Plan(same, ()), fence)
            await self._source.bring(order)
            self._count(order.result)
            self._lease.look_again(layout)
            self._lease.repair(layout, fence)

    async def _act(
        self, layout: Layout, state: State[Any], done: CycleResult, fence: Fence
    ) -> Outcome:
        """
        Bring the tree up to date with a state, and publish it.

        Args:
            done: What was repaired before.
        """
        if state is self._acted and self._rest and not (done.healed or self._is_disturbed(layout)):
            return self._rest
        self._acted, self._rest = state, None
        result = await self._bring(layout, state, fence)
        if layout.is_atomic and result.blocked:
            result = await self._bring_by_force(layout, state, fence)
        is_complete = result.is_complete and not self._lease.torn
        refusal = None
        is_shown = False
        if layout.is_atomic:
            done.add(self._lease.repair(layout, fence))
            refusal = self._ask_gate(layout, state, fence) if is_complete else None
            is_complete = is_complete and not self._lease.torn
            if is_complete and not refusal and not layout.shows(state.revision):
                done.add(layout.publish(state.revision, fence))
                is_shown = True
            is_complete = is_complete and not done.failed
            if layout.shown is not None:
                layout.shown.end_cycle(fence)
            self._count(replace(done, healed=0))  # those are counted as they are repaired
            done.take_over(result)
        else:
            done = result
        self._lease.look_again(layout)
        self._blocked = done.blocked
        self._skipped.show(state.skipped, map(state.key_of, self._blocked))
        if is_complete:
            self._status.show(refused=refusal.facts() if refusal else {})
        is_news = state.revision != self._lease.published.revision
        is_changed = (is_shown and is_news) or bool(
            done.published or done.adopted or done.deleted or done.healed
        )
        if is_complete and not refusal:
            if is_changed or is_news or self._lease.is_half_done:
                self._lease.record(layout, state.revision, fence)
            layout.clear_others(fence)
            self._status.show(**state.facts)
        return self._conclude(layout, state, done, is_changed, refusal)

    def _is_disturbed(self, layout: Layout) -> bool:
        """
        Whether there is something to do although the source is the same.
        """
        return bool(
            layout.shown is None
            or self._lease.damaged
            or self._lease.torn
            or self._blocked
            or self._settings.delete == "all"
        )

    def _damaged(self, layout: Layout) -> set[str]:
        return self._lease.torn if layout.is_atomic else self._lease.damaged

    def _order(
        self, layout: Layout, state: State[Any], plan: Plan[Any], fence: Fence
    ) -> Order[Any]:
        return Order(
            state,
            plan,
            layout.tree,
            fence,
            damaged=self._damaged(layout),
            blocked=self._blocked,
            is_hidden=layout.is_atomic,
            begin=lambda: self._lease.begin(layout, state.revision, fence),
        )

    async def _bring(self, layout: Layout, state: State[Any], fence: Fence) -> CycleResult:
        """
        Bring the tree up to date with the state.
        """
        plan = self._plan(layout, state, fence)
        order = self._order(layout, state, plan, fence)
        are_gone = any(path not in state.wanted for path in plan.delete)
        if are_gone and not await self._source.confirms_deletions(state, fence):
            order = replace(order, plan=replace(plan, delete=()))
            order.result.moved += plan.delete
        try:
            await self._source.bring(order)
        finally:
            if layout.is_atomic:
                self._metrics.downloaded.inc(order.result.downloaded_bytes)
            else:
                self._count(order.result)
            if not fence.is_revoked:
                layout.tree.end_cycle(fence)
        self._lease.look_again(layout)
        return order.result

    async def _bring_by_force(self, layout: Layout, state: State[Any], fence: Fence) -> CycleResult:
        """
        Retry after removing whatever blocks a path; otherwise the revision would be incomplete.

        Raises:
            TargetError: It cannot be removed.
        """
        for path in layout.tree.foreign():  # the tree is ours alone
            layout.tree.delete(path, fence)
        result = await self._bring(layout, state, fence)
        for path in result.blocked:
            raise TargetError(
                "target_failed",
                f"something that cannot be removed is at {path!r} in .s3-sync",
                "Look at it as its owner; .s3-sync is s3-sync's own.",
            )
        return result

    def _plan(self, layout: Layout, state: State[Any], fence: Fence) -> Plan[Any]:
        tree, damaged = layout.tree, self._damaged(layout)
        may_delete = self._settings.delete != "none"
        if not may_delete:
            # Kept although its key is gone, and now lost: there is nothing to put back.
            for path in damaged - state.wanted.keys():
                tree.forget(path, fence)
        return make_plan(
            state.wanted,
            tree.managed.files,
            damaged=damaged,
            foreign=tree.foreign() if self._settings.delete == "all" else (),
            last=self._source.late,
            may_delete=may_delete,
        )

    def _ask_gate(self, layout: Layout, state: State[Any], fence: Fence) -> RevisionRefused | None:
        """
        Ask the gate about what consumers do not see yet.
        """
        if self._gate is None:
            return None
        if layout.shows(state.revision):
            self._gate.rest()
            return None
        changed = [path for path, _ in layout.changes().publish]
        refusal = self._gate.judge(state.revision, layout.tree.path, changed, fence)
        self._lease.look_at_all(layout)  # a command may have written to what it judged
        return refusal

    def _conclude(
        self,
        layout: Layout,
        state: State[Any],
        result: CycleResult,
        is_changed: bool,
        refusal: RevisionRefused | None,
    ) -> Outcome:
        if result.failed:
            error = next(iter(result.failed.values()))
            if len(result.failed) > 1:
                error.message += f"; {len(result.failed) - 1} more files failed"
            raise error
        self._source.judge(result)
        revision = self._lease.published.revision if layout.is_atomic else state.revision
        counts: Mapping[str, int | str] = {
            "files_published": result.published,
            "files_deleted": result.deleted,
            "files_healed": result.healed,
            "files_adopted": result.adopted,
            "files_moved": len(result.moved),
            "keys_skipped": len(state.skipped) + len(self._blocked),
            "downloaded_bytes": result.downloaded_bytes,
        }
        if refusal:
            self._rest = Outcome("refused", revision, refusal=refusal)
            return replace(self._rest, counts=counts)
        if layout.is_atomic and state.revision != revision:
            return Outcome("settling", revision, counts)
        if not result.moved:
            self._rest = Outcome("unchanged", revision)
        return Outcome("changed" if is_changed else "unchanged", revision, counts)

    def _count(self, result: CycleResult) -> None:
        self._metrics.published.inc(result.published)
        self._metrics.deleted.inc(result.deleted)
        self._metrics.healed.inc(result.healed)
        self._metrics.downloaded.inc(result.downloaded_bytes)
