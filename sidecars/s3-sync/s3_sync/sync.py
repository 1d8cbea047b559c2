"""
One cycle: lock → inspect → read → settle → brake → plan → build → judge → publish → record.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from s3_sync.brake import Brake
from s3_sync.build import Build, Builder
from s3_sync.changes import compare, tell
from s3_sync.folder.record import Published, now
from s3_sync.folder.target import Target
from s3_sync.gatekeeper import Gatekeeper
from s3_sync.keys import compile_filter
from s3_sync.listing import ListingSource, Reading, settle
from s3_sync.metrics import Status
from s3_sync.plan import Plan, State, make_plan, without_clashes
from s3_sync.problems import Problems, explain
from s3_sync.release.source import ReleaseSource
from s3_sync.settings import Settings
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.gate.gate import Gate, RevisionRefused
from sidecar_runtime.health import Outcome
from sidecar_runtime.logs import get_logger

# The part of a cycle's time in which objects are read; the rest is for publishing.
READING_SHARE = 0.9
# A one-shot accepts a partial state after this many cycles with the same missing files.
SAME_PARTIAL_CYCLES = 3

log = get_logger("cycle")


@dataclass(slots=True)
class Memory:
    """
    What a cycle leaves to the next one, besides what is on the volume.

    Args:
        reading: The last listing, while S3_SYNC_SETTLE is set.
        missing: The files that the last cycle lacked, with the error.
        same_cycles: In how many cycles in a row the same files were missing, apart from those that
            keep changing.
        has_waited: Whether all files waited for a newly unreadable one.
    """

    reading: Reading | None = None
    missing: Mapping[str, SidecarError] = field(default_factory=dict)
    same_cycles: int = 0
    has_waited: bool = False


class Sync:
    """
    Brings one target up to date with one source, cycle by cycle; belongs to one thread.
    """

    def __init__(
        self,
        settings: Settings,
        status: Status,
        target: Target,
        source: ListingSource | ReleaseSource,
        gate: Gate | None,
    ) -> None:
        self._settings = settings
        self._status = status
        self._target = target
        self._source = source
        self._problems = Problems(status, settings.interval_seconds)
        self._brake = Brake(settings.max_delete_percent)
        self._builder = Builder(settings, status, target, source, self._problems)
        self._gatekeeper = Gatekeeper(
            gate, target, source, self._builder, one_shot=settings.one_shot
        )
        self._memory = Memory()

    async def cycle(self, fence: Fence) -> Outcome:
        """
        Run one cycle on a locked target.

        Raises:
            SidecarError: The cycle failed; what is published stays.
            OSError: The volume fails.
            CycleAbandoned: The fence was revoked.
        """
        target, builder = self._target, self._builder
        until = time.monotonic() + READING_SHARE * self._settings.timeout_seconds
        target.inspect(fence)
        asked_at = time.monotonic()
        read = await self._source.read(fence)
        state = without_clashes(read, target.fold, self._settings.prefix)
        self._problems.meet(state.files, is_asked_for=fence.is_asked_for)
        builder.show(state, builder.blocked)
        if not self._is_settled(state, asked_at):
            await builder.heal(state, until, fence)
            return Outcome("settling", self._revision)
        if (held := self._brake_on(state, fence)) is not None:
            await builder.heal(state, until, fence)
            return Outcome("held", self._revision, problem=held, is_enough=True)
        refusal = self._gatekeeper.recall(state, self._problems)
        if refusal is not None:
            await builder.heal(state, until, fence)
            if target.is_good:
                return self._refused(refusal)
        plan = self._plan(state)
        if self._is_done(state, plan):
            target.finish(fence)
            return self._unchanged(state, plan)
        # A cycle that fails has waited as well.
        has_waited, self._memory.has_waited = self._memory.has_waited, True
        build = await builder.build(state, plan, until, fence)
        if self._must_wait(build, has_waited):
            return Outcome("settling", self._revision, self._counts(build))
        refusal = self._gatekeeper.judge(build, fence)
        if refusal is not None:
            await builder.heal(state, until, fence)
            if target.is_good:
                target.drop()
                return self._refused(refusal)
            rest = await self._gatekeeper.fall_back(build, refusal, until, fence)
            if rest is None:
                return self._refused(refusal)
            build = rest
        counts = self._publish(build, fence)
        return self._conclude(build, refusal, counts)

    def start_over(self) -> None:
        """
        Begin on another volume, or without one while another process has the lock.
        """
        self._memory = Memory()
        published = self._target.published
        if isinstance(self._source, ReleaseSource) and published is not None:
            before = self._source.sequence
            self._source.sequence = max(before, (published.sequence, published.signed_by))
        self._builder.blocked = frozenset()
        self._problems.keep(())
        self._problems.show({}, ())
        self._status.metrics.held.set(0)

    # --- before

    @property
    def _revision(self) -> str:
        published = self._target.published
        return published.revision if published is not None else ""

    def _is_settled(self, state: State, asked_at: float) -> bool:
        """
        Whether a listing has stayed the same for S3_SYNC_SETTLE.
        """
        seconds = self._settings.settle_seconds
        if not seconds:
            return True
        reading = settle(self._memory.reading, state.revision, time.monotonic())
        self._memory.reading = reading
        published = self._target.published
        is_acted_upon = published is not None and published.aim == state.revision
        return is_acted_upon or asked_at - reading.since >= seconds

    def _brake_on(self, state: State, fence: Fence) -> SidecarError | None:
        """
        Return why a listing is held back; None if it may be applied.

        Files that are lost already, and those that the filters leave out, are not missed.
        """
        settings, shown = self._settings, self._target.shown
        if state.is_whole or settings.delete == "none" or shown is None:
            return None
        if self._target.published is None:  # the files on disk may belong to another source
            return None
        gone: list[str] = []
        if not shown.files.keys() <= state.files.keys():
            is_selected = compile_filter(settings.include, settings.exclude)
            gone = [
                path
                for path in shown.files
                if path not in state.files and path not in state.kept and is_selected(path)
            ]
        lost = self._target.damage.files.intersection(gone)
        gone = [path for path in gone if path not in lost]
        held = self._brake.judge(
            gone, len(shown.files) - len(lost), is_asked_for=fence.is_asked_for
        )
        self._status.metrics.held.set(held.files if held is not None else 0)
        return held

    def _plan(self, state: State) -> Plan:
        target = self._target
        shown, is_known = target.shown, target.published is not None
        may_delete = self._settings.delete != "none"
        # Before the first publish, the files on disk may belong to another source.
        kept = state.kept if is_known else ()
        if shown is None:
            return make_plan(state, {}, may_delete=False)
        damaged = target.damage.files
        for path in damaged - state.files.keys():
            if path in kept or not may_delete:  # lost: it cannot be downloaded again
                shown.forget(path)
        damaged.intersection_update(shown.files)
        clears = self._settings.delete == "all" and target.snapshots is None
        return make_plan(
            state._replace(kept=kept),
            shown.files,
            damaged=damaged,
            foreign=shown.foreign() if clears else (),
            may_delete=may_delete,
        )

    def _is_done(self, state: State, plan: Plan) -> bool:
        """
        Whether what is published is the state as far as it can be read, and says so.
        """
        target, published = self._target, self._target.published
        return (
            published is not None
            and target.shown is not None
            and target.record.is_written
            and target.is_good
            and (published.aim, published.fallback) == (state.revision, "")
            and published.missing == len(plan.put)
            and not (plan.delete or published.is_filtered)
            and not set(plan.put) - self._problems.resting
        )

    def _must_wait(self, build: Build, has_waited: bool) -> bool:
        """
        Whether the files may belong to two states: an upload, an outage or a policy change happened
        during the cycle. Only where a state is shown at once; never in two cycles in a row, nor if
        the last cycle lacked the same files. The first publish waits for uploads only.
        """
        memory, missing = self._memory, build.missing
        is_first = self._target.published is None
        newly = {
            path
            for path in missing.keys() - memory.missing.keys()
            if missing[path].reason == "object_changing" or not is_first
        }
        is_same = missing and _lasting(missing) == _lasting(memory.missing)
        memory.same_cycles = memory.same_cycles + 1 if is_same else int(bool(missing))
        memory.missing = missing
        is_shown = build.folder is self._target.shown
        memory.has_waited = bool(newly) and not has_waited and not is_shown
        return memory.has_waited

    # --- after

    def _publish(self, build: Build, fence: Fence) -> dict[str, int]:
        """
        Show a build and record it; return the numbers for the log.
        """
        target = self._target
        if target.snapshots is not None:
            target.snapshots.publish(build.name, build.folder, fence)
            if target.damage.files:  # what was replaced is damaged now
                target.snapshots.tidy(fence, is_damaged=True)
        folder = target.shown
        assert folder is not None
        folder.end_cycle(fence)
        self._builder.blocked = frozenset(build.work.blocked)
        for path, error in build.work.failed.items():
            if path not in build.missing:
                raise error
        changes = compare(target.damage.recorded, folder.files, build.work.adopted)
        healed = self._builder.count_healed(changes.changed)
        said = Published(
            "" if build.missing else build.name,
            build.fallback or build.state.revision,
            build.name,
            len(build.missing),
            build.fallback,
            now(),
            len(folder.files),
            False,
            *build.state.sequence,
        )
        before = target.published
        is_same = before is not None and said == before._replace(published_at=said.published_at)
        if not is_same or changes or build.work.adopted or healed or not target.record.is_written:
            target.write(said, changes.counts(), fence)
            tell(build.name, changes, self._status)
        target.finish(fence)
        self._status.show(**build.state.facts)
        self._status.metrics.files.published.inc(len(changes.added) + len(changes.changed) + healed)
        self._status.metrics.files.deleted.inc(len(changes.deleted))
        return {
            "files_published": len(changes.added) + len(changes.changed),
            "files_deleted": len(changes.deleted),
            "files_healed": healed,
            **self._counts(build),
        }

    def _conclude(
        self, build: Build, refusal: RevisionRefused | None, counts: Mapping[str, int]
    ) -> Outcome:
        """
        Return the outcome of a cycle that has published.

        Raises:
            Undecided: The gate must be asked again.
        """
        if build.undecided is not None and not self._settings.one_shot:
            raise build.undecided
        names = ("files_published", "files_deleted", "files_healed", "files_adopted")
        is_changed = any(counts[name] for name in names)
        self._status.show(refused=refusal.facts() if refusal is not None else {})
        if refusal is not None:
            return self._refused(refusal)._replace(counts=counts if is_changed else {})
        if build.missing:
            return Outcome(
                "partial",
                counts=counts if is_changed else {},
                problem=explain(build.missing, build.state.files),
                is_enough=self._memory.same_cycles >= SAME_PARTIAL_CYCLES,
            )
        return Outcome("changed" if is_changed else "unchanged", self._revision, counts)

    def _unchanged(self, state: State, plan: Plan) -> Outcome:
        """
        Return the outcome of a cycle that had nothing to do.
        """
        self._gatekeeper.rest()
        self._status.show(refused={}, **state.facts)
        if not plan.put:
            self._memory.missing, self._memory.same_cycles = {}, 0
            return Outcome("unchanged", self._revision)
        self._memory.same_cycles += 1
        errors = self._problems.errors
        return Outcome(
            "partial",
            problem=explain({path: errors[path] for path in plan.put}, state.files),
            is_enough=self._memory.same_cycles >= SAME_PARTIAL_CYCLES,
        )

    def _refused(self, refusal: RevisionRefused) -> Outcome:
        self._status.show(refused=refusal.facts())
        is_enough = self._target.published is not None
        return Outcome("refused", self._revision, problem=refusal, is_enough=is_enough)

    def _counts(self, build: Build) -> dict[str, int]:
        work = build.work
        return {
            "files_adopted": len(work.adopted),
            "files_missing": len(build.missing),
            "keys_skipped": len(build.state.skipped) + len(work.blocked),
            "downloaded_bytes": work.downloaded_bytes,
        }


def _lasting(missing: Mapping[str, SidecarError]) -> set[str]:
    """
    Return the missing files that do not just keep changing: of those, each cycle lacks others.
    """
    return {path for path, error in missing.items() if error.reason != "object_changing"}
