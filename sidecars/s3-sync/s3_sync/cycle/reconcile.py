"""
Reconcile: read the source → plan → bring → gate → publish → record.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from s3_sync.cycle.bring import Bringer, count
from s3_sync.cycle.deletions import DeletionBrake
from s3_sync.cycle.last_change import LastChange
from s3_sync.cycle.offer import Offer, Offering, name_of
from s3_sync.cycle.skipped import Skipped
from s3_sync.cycle.unread import Unread, explain
from s3_sync.keys import compile_filter
from s3_sync.layouts.layout import Layout
from s3_sync.lease import Lease
from s3_sync.metrics import SyncMetrics
from s3_sync.result import CycleResult
from s3_sync.settings import Settings
from s3_sync.source import Source, State
from s3_sync.status import Status
from s3_sync.tree.journal import Managed
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.gate.gate import Gate
from sidecar_runtime.health import Outcome

# A one-shot accepts a partial state after this many cycles with the same missing files.
SAME_PARTIAL_CYCLES = 3


class Reconciler:
    """
    Reconciles one source with the target in each cycle.
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
        self._lease = lease
        self._source = source
        self._skipped = Skipped(metrics, status)
        self._unread = Unread(metrics, status, settings.interval_seconds)
        self._brake = DeletionBrake(settings)
        self._is_selected = compile_filter(settings.include, settings.exclude)
        self._bringer = Bringer(settings, metrics, lease, source, self._unread, self._brake)
        self._offering = Offering(
            gate, lease, source, self._bringer.bring, one_shot=settings.one_shot
        )
        self._last_change = LastChange(status)
        # The state that was acted upon last, and the outcome of a cycle while nothing changes.
        self._acted: State[Any] | None = None
        self._rest: Outcome | None = None
        # Whether the layout has nothing left to remove. Only the end of a publish can show that
        # something is left, so it is true before: a refused revision has no such end.
        self._is_finished = True
        # Files that the last cycle could not read; whether the cycle before the last, and the last
        # one, held back all other files because of that.
        self._unsettled: frozenset[str] = frozenset()
        self._had_waited = False
        self._has_waited = False
        self._missing: frozenset[str] = frozenset()
        self._same_cycles = 0

    def start_over(self) -> None:
        """
        Forget the work done on another layout, and count none of its problems.
        """
        self._acted, self._rest = None, None
        self._is_finished = True
        self._unread.start_over()
        self._skipped.show({}, ())
        self._metrics.held.set(0)

    async def reconcile(self, layout: Layout, fence: Fence) -> Outcome:
        """
        Bring the published files up to date with the source.

        Raises:
            SidecarError: The cycle failed; the published files stay.
            Torn: Another process changed a file before it was published.
            OSError: The volume fails.
            CycleAbandoned: The fence was revoked.
        """
        self._had_waited, self._has_waited = self._has_waited, False
        repaired = self._lease.repair(layout, fence)
        if repaired.healed:  # the rest of the cycle may take minutes
            self._lease.show(layout)
        state = await self._source.look(fence)
        self._unread.look(state.wanted, is_asked_for=fence.is_asked_for)
        wait = self._wait(layout, state, fence)
        if wait is None:
            return await self._act(layout, state, repaired, fence)
        await self._bringer.heal(layout, state, fence)
        return wait

    def _wait(self, layout: Layout, state: State[Any], fence: Fence) -> Outcome | None:
        """
        Return why a state must wait; None if it may be acted upon.
        """
        published = self._lease.published
        is_first = published.at is None
        if not self._source.is_settled(state, published.aim, is_first=is_first):
            return Outcome("settling", published.revision, problem=self._source.unrest)
        if state is self._acted:
            return None
        managed = self._deletable(layout, state)
        held = self._brake.judge(state.wanted, managed, is_asked_for=fence.is_asked_for)
        self._metrics.held.set(held.files if held else 0)
        if held is None:
            return None
        return Outcome("held", published.revision, problem=held, is_enough=True)

    def _deletable(self, layout: Layout, state: State[Any]) -> Mapping[str, Managed]:
        """
        Return the published files whose keys would be missed: those that the filters select and
        that are not lost already.
        """
        if layout.shown is None or self._lease.published.at is None:
            return {}  # the files on disk may belong to another source
        lost = self._lease.damaged - state.wanted.keys()
        return {
            path: held
            for path, held in layout.shown.managed.files.items()
            if path not in state.kept and path not in lost and self._is_selected(path)
        }

    async def _act(
        self, layout: Layout, state: State[Any], done: CycleResult, fence: Fence
    ) -> Outcome:
        """
        Bring the tree up to date with a state, and publish it.

        Args:
            done: The repairs made before.
        """
        is_same = state is self._acted and not self._offering.is_due
        if is_same and self._rest and not (done.healed or self._is_disturbed(layout)):
            if not self._is_finished:
                self._is_finished = layout.finish(fence)
            return self._rest
        self._acted, self._rest = state, None
        self._has_waited = True  # stays if the endpoint fails below
        result = await self._bringer.bring(layout, state, fence)
        self._require(state, result)
        if layout.is_atomic:
            done.add(self._lease.repair(layout, fence))
            offer = Offer(state.revision, result.missing)
            if self._is_unsettled(result.missing):
                self._is_same(result.missing)
            else:
                offer = await self._offering.make(layout, state, result.missing, fence)
            if layout.shown is not None:
                layout.shown.end_cycle(fence)
            if offer.is_shown and self._settings.delete == "none":
                self._give_up(layout, offer.missing, done, fence)  # publishing has deleted nothing
            done.add(offer.result)
            count(self._metrics, replace(done, healed=0))  # repairs are counted already
            done.take_over(result)
        else:
            self._give_up(layout, result.missing, result, fence)
            name = name_of(state, result.missing, layout.tree)
            offer, done = Offer(name, result.missing, is_shown=True), result
        self._lease.look_again(layout)
        self._bringer.blocked = done.blocked
        self._show(state, done.blocked)
        self._status.show(refused=offer.refusal.facts() if offer.refusal else {})
        for path, error in done.failed.items():
            # Unreadable files are in `missing`; other failures count if the file is still damaged.
            if path in offer.result.failed or path in self._lease.damaged - offer.missing.keys():
                raise error
        self._record(layout, state, offer, done, fence)
        return self._conclude(state, offer, done)

    def _require(self, state: State[Any], result: CycleResult) -> None:
        """
        Raises:
            SidecarError: The downloaded files must not be published.
        """
        for path, error in result.failed.items():
            if path not in result.missing:
                if len(result.failed) > 1:
                    error.message += f"; {len(result.failed) - 1} more files failed"
                raise error
        # Without an earlier version, too little would be left.
        is_bare = self._lease.published.at is None or self._lease.damaged & result.missing.keys()
        if is_bare and len(result.missing) * 2 > len(state.wanted):
            self._show(state, result.blocked)
            raise explain(result.missing, state.wanted)

    def _give_up(
        self, layout: Layout, paths: Collection[str], result: CycleResult, fence: Fence
    ) -> None:
        """
        Remove published files that cannot be restored now, and those of another source that would
        stand in for files that could not be read.
        """
        if layout.shown is None:
            return
        lost = layout.shown.managed.files.keys() & paths
        if self._lease.published.at is not None:
            lost &= self._lease.damaged
        for path in lost:
            if self._settings.delete == "none":
                layout.shown.forget(path, fence)
            elif layout.shown.delete(path, fence):
                result.delete(path)
                self._metrics.deleted.inc()

    def _show(self, state: State[Any], blocked: Collection[str]) -> None:
        """
        Show which keys have no file on disk, and why.
        """
        wanted = [path for path in blocked if path in state.wanted]
        self._skipped.show(state.skipped, map(state.key_of, wanted))
        self._unread.show()

    def _is_unsettled(self, missing: Mapping[str, SidecarError]) -> bool:
        """
        Whether the downloaded files may belong to two states: an upload, an outage or a policy
        change happened during the cycle.

        Never true in two cycles in a row, nor if the previous cycle lacked the same files: they
        may stay missing. The first publish waits for uploads only.
        """
        before, is_first = self._unsettled, self._lease.published.at is None
        self._unsettled = frozenset(missing)
        newly = {
            path
            for path in missing.keys() - before
            if missing[path].reason == "object_changing" or not is_first
        }
        self._has_waited = bool(newly) and not self._had_waited
        return self._has_waited

    def _is_disturbed(self, layout: Layout) -> bool:
        """
        Whether there is something to do although the source has not changed.
        """
        return bool(
            layout.shown is None
            or self._lease.damaged
            or self._lease.torn
            or self._bringer.blocked
            or self._unread.are_due
            or self._source.suspects(layout.tree)
            or (self._settings.delete == "all" and not self._is_refused)
        )

    @property
    def _is_refused(self) -> bool:
        """
        Whether the gate refused the state; foreign files then trigger no new attempt.
        """
        return self._rest is not None and self._rest.result == "refused"

    def _record(
        self, layout: Layout, state: State[Any], offer: Offer, done: CycleResult, fence: Fence
    ) -> None:
        """
        Record the published state if it has changed.
        """
        if not offer.is_shown:
            return
        published = self._lease.published
        missing = len(offer.missing)
        is_news = (offer.name, missing, offer.fallback) != (
            published.name,
            published.missing,
            published.fallback,
        )
        is_changed = done.published or done.adopted or done.deleted or done.healed
        is_open = published.is_filtered or published.unlisted or layout.problem
        is_open = is_open or not published.is_written
        if layout.shown is not None:
            is_open = is_open or len(layout.shown.managed.files) != published.files
        if is_news or is_changed or is_open or state.revision != published.aim:
            self._lease.record(
                layout,
                fence,
                done.changes,
                name=offer.name,
                aim=state.revision,
                missing=missing,
                fallback=offer.fallback,
            )
        self._is_finished = layout.finish(fence)
        self._last_change.show(offer.name, done.changes)
        self._status.show(**state.facts)

    def _conclude(self, state: State[Any], offer: Offer, done: CycleResult) -> Outcome:
        """
        Return the outcome of a cycle.

        Raises:
            Undecided: The gate must be asked again.
        """
        published = self._lease.published
        if offer.undecided is not None and not (self._settings.one_shot and published.at):
            raise offer.undecided
        is_changed = bool(done.changes or done.adopted or done.healed or done.published)
        counts: Mapping[str, int | str] = {
            "files_published": done.published,
            "files_deleted": done.deleted,
            "files_healed": done.healed,
            "files_adopted": done.adopted,
            "files_missing": len(offer.missing),
            "keys_skipped": len(state.skipped) + len(self._bringer.blocked),
            "downloaded_bytes": done.downloaded_bytes,
        }
        if offer.refusal is not None:
            is_enough = published.at is not None
            self._rest = Outcome(
                "refused", published.revision, problem=offer.refusal, is_enough=is_enough
            )
            return self._rest._replace(counts=counts if is_changed else {})
        if not offer.is_shown:
            return Outcome("settling", published.revision, counts)
        if offer.missing:
            self._rest = Outcome(
                "partial",
                problem=explain(offer.missing, state.wanted),
                is_enough=self._is_same(offer.missing),
            )
            return self._rest._replace(counts=counts if is_changed else {})
        self._missing, self._same_cycles = frozenset(), 0
        self._rest = Outcome("unchanged", published.revision)
        return self._rest._replace(result="changed" if is_changed else "unchanged", counts=counts)

    def _is_same(self, missing: Mapping[str, SidecarError]) -> bool:
        """
        Whether the same files have been missing for SAME_PARTIAL_CYCLES cycles.

        Objects that keep changing do not count: each cycle may miss different ones.
        """
        same = frozenset(
            path for path, error in missing.items() if error.reason != "object_changing"
        )
        self._same_cycles = self._same_cycles + 1 if same == self._missing else 1
        self._missing = same
        return self._same_cycles >= SAME_PARTIAL_CYCLES
