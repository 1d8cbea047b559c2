"""
One cycle: lock → inspect → read → settle → brake → plan → build → judge → publish → record.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from s3_sync.build import Build, Builder, Source
from s3_sync.digest import Content
from s3_sync.folder.record import Published, now
from s3_sync.folder.target import Target
from s3_sync.keys import compile_filter
from s3_sync.listing import Reading, settle
from s3_sync.metrics import Status
from s3_sync.plan import Brake, Plan, State, is_held, make_plan, without_clashes
from s3_sync.problems import explain
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
NAMED_PATHS = 20

log = get_logger("cycle")
_STANDARD_LOG = logging.getLogger("cycle")


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
        source: Source,
        gate: Gate | None,
    ) -> None:
        self._settings = settings
        self._status = status
        self._target = target
        self._source = source
        self._brake = Brake(settings.max_delete_percent)
        self._builder = Builder(settings, status, target, source, gate)
        self._problems = self._builder.problems
        self._memory = Memory()

    async def cycle(self, fence: Fence) -> Outcome:
        """
        Run one cycle on a locked target.

        Raises:
            SidecarError: The cycle failed; what is published stays.
            OSError: The volume fails.
            CycleAbandoned: The fence was revoked.
        """
        target, builder, volume = self._target, self._builder, self._target.volume
        assert volume is not None
        until = time.monotonic() + READING_SHARE * self._settings.timeout_seconds
        target.inspect(fence)

        asked_at = time.monotonic()
        read = await self._source.read(fence)
        state = without_clashes(read, volume.fold, self._settings.prefix)
        self._problems.meet(state.files, is_asked_for=fence.is_asked_for)
        blocked = [self._settings.prefix + p for p in sorted(builder.blocked & state.files.keys())]
        self._problems.show(state.skipped, blocked)

        waiting = (
            self._settling(state, asked_at) or self._braked(state, fence) or self._recalled(state)
        )
        if waiting is not None:
            await builder.heal(state, until, fence)
            if waiting.result != "refused" or target.is_good:
                return waiting

        plan = self._plan(state)
        if self._is_done(state, plan):
            target.finish(fence)
            return self._unchanged(state, plan)

        # A cycle that fails has waited as well.
        has_waited, self._memory.has_waited = self._memory.has_waited, True
        build = await builder.build(state, plan, until, fence)
        if self._must_wait(build, has_waited):
            return Outcome("settling", self._revision, _counts(build))
        try:
            build = await builder.judge(build, until, fence)
        except RevisionRefused as refusal:
            return self._refused(refusal)

        if target.snapshots is not None:
            target.snapshots.publish(build.name, build.folder, fence)
            if target.damaged:  # what was replaced is damaged now
                target.snapshots.drop_damaged(fence)
        counts = self._record(build, fence)
        return self._conclude(build, counts)

    def start_over(self) -> None:
        """
        Begin on another volume, or without one while another process has the lock.
        """
        self._memory = Memory()
        published = self._target.published
        if isinstance(self._source, ReleaseSource) and published is not None:
            before = self._source.sequence
            self._source.sequence = max(before, (published.sequence, published.signed_by))
        self._problems.keep(())
        self._problems.show({}, ())
        self._status.metrics.held.set(0)

    # --- before

    @property
    def _revision(self) -> str:
        published = self._target.published
        return published.revision if published is not None else ""

    def _settling(self, state: State, asked_at: float) -> Outcome | None:
        """
        Return the outcome while a new listing has not stayed the same for S3_SYNC_SETTLE.
        """
        seconds, published = self._settings.settle_seconds, self._target.published
        if not seconds:
            return None
        reading = settle(self._memory.reading, state.revision, time.monotonic())
        self._memory.reading = reading
        is_acted_upon = published is not None and published.aim == state.revision
        is_settled = is_acted_upon or asked_at - reading.since >= seconds
        return None if is_settled else Outcome("settling", self._revision)

    def _braked(self, state: State, fence: Fence) -> Outcome | None:
        """
        Return the outcome while a listing is held back because it lacks too many files.

        Files that are lost already, and those that the filters leave out, are not missed. Before
        the first publish, the files on disk may belong to another source.
        """
        settings, shown = self._settings, self._target.shown
        if state.is_whole or settings.delete == "none":
            return None
        if shown is None or self._target.published is None:
            return None
        gone = shown.files.keys() - state.files.keys()
        if gone:
            is_selected = compile_filter(settings.include, settings.exclude)
            gone = {path for path in gone if path not in state.kept and is_selected(path)}
        lost = self._target.damaged & gone
        count = len(shown.files) - len(lost)
        held = self._brake.judge(gone - lost, count, is_asked_for=fence.is_asked_for)
        self._status.metrics.held.set(held.files if held is not None else 0)
        if held is None:
            return None
        return Outcome("held", self._revision, problem=held, is_enough=True)

    def _recalled(self, state: State) -> Outcome | None:
        """
        Return the outcome while a refusal of this state is remembered.
        """
        refusal = self._builder.recall(state)
        return self._refused(refusal) if refusal is not None else None

    def _refused(self, refusal: RevisionRefused) -> Outcome:
        self._status.show(refused=refusal.facts())
        is_enough = self._target.published is not None
        return Outcome("refused", self._revision, problem=refusal, is_enough=is_enough)

    def _plan(self, state: State) -> Plan:
        target, delete = self._target, self._settings.delete
        shown, damaged = target.shown, target.damaged
        if shown is None:
            return make_plan(state, {}, may_delete=False)
        # Before the first publish, the files on disk may belong to another source.
        kept = state.kept if target.published is not None else ()
        for path in damaged - state.files.keys():
            if path in kept or delete == "none":  # lost: it cannot be downloaded again
                shown.forget(path)
        damaged.intersection_update(shown.files)
        is_cleared = delete == "all" and target.snapshots is None
        return make_plan(
            state._replace(kept=kept),
            shown.files,
            damaged=damaged,
            foreign=shown.foreign() if is_cleared else (),
            may_delete=delete != "none",
        )

    def _is_done(self, state: State, plan: Plan) -> bool:
        """
        Whether what is published is the state as far as it can be read, and says so.
        """
        target, published = self._target, self._target.published
        return (
            published is not None
            and target.is_good
            and target.record.is_written
            and (published.aim, published.fallback) == (state.revision, "")
            and published.missing == len(plan.put)
            and not (plan.delete or target.record.is_filtered)
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
        is_at_once = self._target.snapshots is not None
        memory.has_waited = bool(newly) and is_at_once and not has_waited
        return memory.has_waited

    # --- after

    def _record(self, build: Build, fence: Fence) -> dict[str, int]:
        """
        Record and tell what was published; return the numbers for the log.
        """
        target, folder, before = self._target, self._target.shown, self._target.published
        assert folder is not None
        folder.end_cycle(fence)
        for path, error in build.work.failed.items():
            if path not in build.missing:
                raise error
        changes = compare(target.recorded, folder.files, build.work.adopted)
        healed = target.count_healed(changes["changed"])
        name, missing, aim = build.name, len(build.missing), build.fallback or build.state.revision
        revision, files = "" if missing else name, len(folder.files)
        facts = (aim, name, missing, build.fallback, now(), files, *build.state.sequence)
        said = Published(revision, *facts)
        numbers = {kind: len(paths) for kind, paths in changes.items()}
        is_same = before is not None and said == before._replace(published_at=said.published_at)
        is_changed = any(numbers.values()) or build.work.adopted or healed
        if is_changed or not is_same or not target.record.is_written:
            target.write(said, numbers if any(numbers.values()) else {}, fence)
            self._tell(name, changes)
        target.finish(fence)
        self._status.show(**build.state.facts)
        published = numbers["added"] + numbers["changed"]
        self._status.metrics.files.published.inc(published + healed)
        self._status.metrics.files.deleted.inc(numbers["deleted"])
        return {
            "files_published": published,
            "files_deleted": numbers["deleted"],
            "files_healed": healed,
            **_counts(build),
        }

    def _tell(self, name: str, changes: Mapping[str, Collection[str]]) -> None:
        """
        Log and show the changes of a publish, if there are any.
        """
        lists = {kind: list(paths) for kind, paths in changes.items() if paths}
        if not lists:
            return
        most = None if _STANDARD_LOG.isEnabledFor(logging.DEBUG) else NAMED_PATHS
        log.info(
            "files_changed",
            name=name,
            **{f"files_{kind}": len(paths) for kind, paths in changes.items()},
            **{kind: paths[:most] for kind, paths in lists.items()},
        )
        said = {
            kind: f"{len(paths)}: {', '.join(paths[:NAMED_PATHS])}" for kind, paths in lists.items()
        }
        at = datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds")
        self._status.show(last_change={"at": at, **said})

    def _conclude(self, build: Build, counts: Mapping[str, int]) -> Outcome:
        """
        Return the outcome of a cycle that has published.

        Raises:
            Undecided: The gate must be asked again.
        """
        if build.undecided is not None and not self._settings.one_shot:
            raise build.undecided
        names = ("files_published", "files_deleted", "files_healed", "files_adopted")
        counts = counts if any(counts[name] for name in names) else {}
        self._status.show(refused={})
        if build.refusal is not None:
            return self._refused(build.refusal)._replace(counts=counts)
        if build.missing:
            return self._partial(build.missing, build.state)._replace(counts=counts)
        return Outcome("changed" if counts else "unchanged", self._revision, counts)

    def _unchanged(self, state: State, plan: Plan) -> Outcome:
        """
        Return the outcome of a cycle that had nothing to do.
        """
        memory = self._memory
        memory.has_waited = False
        self._builder.rest()
        self._status.show(refused={}, **state.facts)
        if not plan.put:
            memory.missing, memory.same_cycles = {}, 0
            return Outcome("unchanged", self._revision)
        memory.same_cycles += 1
        errors = self._problems.errors
        return self._partial({path: errors[path] for path in plan.put}, state)

    def _partial(self, missing: Mapping[str, SidecarError], state: State) -> Outcome:
        problem = explain(missing, state.files)
        is_enough = self._memory.same_cycles >= SAME_PARTIAL_CYCLES
        return Outcome("partial", problem=problem, is_enough=is_enough)


def compare(
    before: Mapping[str, Content], after: Mapping[str, Content], adopted: Collection[str] = ()
) -> dict[str, list[str]]:
    """
    Return what changes for consumers between two states, by kind; restoring a damaged file changes
    nothing.

    Args:
        adopted: Paths whose file was there before, with the same content.
    """
    new = [
        path for path, file in after.items() if path not in adopted and before.get(path) is not file
    ]
    return {
        "added": [path for path in new if path not in before],
        "changed": [p for p in new if p in before and not is_held(before[p], after[p])],
        "deleted": [path for path in before if path not in after],
    }


def _counts(build: Build) -> dict[str, int]:
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
