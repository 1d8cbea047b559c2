"""
One cycle: lock → inspect → read → settle → brake → plan → build → judge → publish →
record.

``Sync._unsettled_listing`` waits until a listing stays the same, and ``Sync.cycle`` for one
cycle if files of a snapshot fail that did not fail before: both wait, unsettled.
`listing.py` looks again before a deletion; what consumers see, and whether that is
ready, is the target's (`folder/target.py`). ``S3_SYNC_DELETE=none`` keeps files in
``Sync.cycle``, in ``Builder._give_up`` and in ``Target.finish``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

from s3_sync.build import Build, Builder, Parts
from s3_sync.folder.target import Published, now
from s3_sync.listing import Settling
from s3_sync.names import Content
from s3_sync.plan import (
    NAMED_FILES,
    Brake,
    Plan,
    State,
    is_held,
    make_plan,
    without_clashes,
)
from s3_sync.problems import LASTING_CYCLES, Shortage, explain
from s3_sync.reasons import failure
from s3_sync.release.source import ReleaseSource
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.gate.gate import RevisionRefused
from sidecar_runtime.health import Outcome
from sidecar_runtime.logs import get_logger

# The part of a cycle's time in which objects are read; the rest is for publishing.
READING_SHARE = 0.9
# What the outcome of a held deletion counts.
HELD = "files_held"
NO_COUNTS: Mapping[str, int] = {}

log = get_logger("cycle")


class Sync:
    """
    Brings one target up to date with one source, cycle by cycle; belongs to one thread.
    """

    def __init__(self, parts: Parts) -> None:
        self._settings, self._status, self._target, self._source, _ = parts
        self._brake = Brake(self._settings.max_delete_percent)
        self._builder = Builder(parts)
        self._settling = Settling(self._settings.settle_seconds)
        self._shortage = Shortage()

    async def cycle(self, fence: Fence) -> Outcome:
        """
        Run one cycle on a locked target.

        Raises:
            SidecarError: The cycle failed; what is published stays.
            OSError: The volume fails.
            CycleAbandoned: The fence was revoked.
        """
        target, builder, problems = self._target, self._builder, self._builder.problems
        assert target.volume is not None
        until = time.monotonic() + READING_SHARE * self._settings.timeout_seconds
        target.inspect(fence)

        asked_at = time.monotonic()
        read = await self._source.read(fence)
        held = target.shown.files if target.shown is not None else {}
        if not target.record.is_of_source and (
            target.snapshots or self._settings.delete != "none"
        ):
            # those are not what was archived
            read = read._replace(kept=read.kept - held.keys())
        elif self._settings.delete == "none":
            read = read._replace(kept={*read.kept, *(held.keys() - read.files.keys())})
        state = without_clashes(read, target.volume.fold, self._settings.prefix)
        problems.meet(state.files, held, is_asked_for=fence.is_asked_for)
        problems.show(state.skipped)
        healed = await builder.repair(state, until, fence)

        refusal = builder.recall(state)
        waiting = self._unsettled_listing(state, held, asked_at) or self._braked(
            state, fence
        )
        if waiting is not None:
            return waiting
        if refusal is not None and target.is_good(fence):
            return self._refused(refusal)

        plan = self._plan(state)
        if self._is_done(state, plan, fence):
            target.finish(fence)
            errors = problems.errors
            missing = {path: errors[path] for path in plan.put}
            self._shortage.is_new(missing)
            return self._outcome(state, missing, {"files_healed": healed})

        build = await builder.build(state, plan, until, fence)
        # Files of snapshots belong together: an upload, an outage or a change of a
        # policy may have happened during the cycle. So a new lack settles for a cycle,
        # without S3_SYNC_SETTLE, too.
        if self._shortage.is_new(build.missing) and target.snapshots is not None:
            why = explain(build.missing, build.state.files)
            said = f"{why.message}; perhaps an upload is not over: looked at again"
            return self._unsettled(said, counts=_counts(build))
        try:
            build = await builder.judge(build, until, fence)
        except RevisionRefused as refusal:
            return self._refused(refusal)

        if target.snapshots is not None:
            target.snapshots.publish(build.name, build.work.folder, fence)
        try:
            counts = {"files_healed": healed, **self._record(build, fence)}
        finally:
            if target.snapshots is not None:
                target.snapshots.show(fence)
        target.finish(fence)
        return self._outcome(build.state, build.missing, counts, build.refusal)

    def begin_cycle(self) -> None:
        """
        Begin a cycle, which may end before it has a volume.
        """
        self._brake.begin_cycle()

    def start_over(self) -> None:
        """
        Begin on another volume, or without one while another process has the lock.
        """
        self._settling = Settling(self._settings.settle_seconds)
        self._shortage = Shortage()
        self._brake.begin_cycle()  # the time until now does not count
        if isinstance(self._source, ReleaseSource):
            self._source.sequence = max(
                self._source.sequence, self._target.record.sequence
            )
        self._builder.problems.meet({}, {})
        self._builder.problems.show({})

    # --- before

    @property
    def _revision(self) -> str:
        published = self._target.published
        return published.revision if published is not None else ""

    def _unsettled_listing(
        self, state: State, held: Mapping[str, Content], asked_at: float
    ) -> Outcome | None:
        """
        Return the outcome while a new listing has not stayed the same for
        S3_SYNC_SETTLE. An object that never does holds back only itself.
        """
        seconds = self._settings.settle_seconds
        if not seconds:
            return None
        left_seconds = self._settling.left_seconds(
            state.files, asked_at, time.monotonic()
        )
        self._builder.problems.hold_back(
            self._settling.restless, state.files, held, rest_seconds=seconds
        )
        published = self._target.published
        is_acted_upon = published is not None and published.aim == state.revision
        if is_acted_upon or not left_seconds:
            return None
        self._shortage = Shortage()  # what comes after a change is never the same lack
        said = f"the listing has not stayed the same for S3_SYNC_SETTLE ({seconds:g} s)"
        return self._unsettled(said, until=time.time() + left_seconds)

    def _unsettled(
        self,
        said: str,
        *,
        until: float | None = None,
        counts: Mapping[str, int] = NO_COUNTS,
    ) -> Outcome:
        return Outcome(
            "waiting",
            self._revision,
            counts,
            why=failure("source_unsettled", said),
            until=until,
        )

    def _braked(self, state: State, fence: Fence) -> Outcome | None:
        """
        Return the outcome while a listing is held back because it lacks too many files.

        Files that are lost already are not missed. Before the first publish, the files
        on disk may belong to another source.
        """
        shown = self._target.shown
        if state.is_whole or shown is None or self._target.published is None:
            return None
        gone = shown.files.keys() - state.files.keys()
        lost = gone.intersection(shown.lost()) if gone else set()
        gone = gone.difference(state.kept, lost)
        count = len(shown.files) - len(lost)
        held = self._brake.judge(gone, count, is_asked_for=fence.is_asked_for)
        if held is None:
            return None
        return Outcome(
            "waiting",
            self._revision,
            {HELD: len(gone)},
            why=held,
            until=time.time() + self._brake.left_seconds,
            is_enough=True,
        )

    def _refused(self, refusal: RevisionRefused) -> Outcome:
        self._status.show(refused=refusal.facts())
        is_enough = self._target.published is not None
        return Outcome("partial", self._revision, why=refusal, is_enough=is_enough)

    def _plan(self, state: State) -> Plan:
        target, shown = self._target, self._target.shown
        if shown is None:
            return make_plan(state, {})
        lost, layout = shown.lost(), target.snapshots
        is_same = (
            layout
            and state.is_whole
            and state.revision == self._revision == layout.name
        )
        if is_same and not lost and len(shown.files) == len(state.files):
            return Plan((), ())
        for path in lost:
            if path in state.kept:
                shown.forget(path)  # it cannot be downloaded again
        is_cleared = self._settings.delete == "all" and target.snapshots is None
        return make_plan(
            state, shown.files, foreign=shown.foreign() if is_cleared else ()
        )

    def _is_done(self, state: State, plan: Plan, fence: Fence) -> bool:
        """
        Whether what is published is the state as far as it can be read, and says so.
        """
        published = self._target.published
        return (
            published is not None
            and (published.aim, published.fallback) == (state.revision, "")
            and published.missing == len(plan.put)
            and published.sequence >= state.sequence[0]
            and not plan.delete
            and self._target.record.is_written
            and not set(plan.put) - self._builder.problems.resting
            and self._target.is_good(fence)
        )

    # --- after

    def _record(self, build: Build, fence: Fence) -> dict[str, int]:
        """
        Record and log what is published; return the numbers for the log.
        """
        target, folder, before = (
            self._target,
            self._target.shown,
            self._target.published,
        )
        assert folder is not None
        folder.end_cycle(fence)
        for path, error in build.work.failed.items():
            if path not in build.missing:
                raise error
        changes = compare(target.recorded, folder.files)
        numbers = {kind: len(paths) for kind, paths in changes.items()}
        sequence, signed_by = build.state.sequence
        said = Published(
            revision="" if build.missing else build.name,
            aim=build.fallback or build.state.revision,
            name=build.name,
            missing=len(build.missing),
            fallback=build.fallback,
            published_at=now(),
            files=len(folder.files),
            sequence=sequence,
            signed_by=signed_by,
            **numbers,
        )
        if any(numbers.values()):
            counts = {f"files_{kind}": number for kind, number in numbers.items()}
            named = {
                kind: paths[:NAMED_FILES] for kind, paths in changes.items() if paths
            }
            log.info("files_changed", name=build.name, **counts, **named)
        elif before is not None:  # the numbers of the last publish stay
            said = said._replace(**{kind: getattr(before, kind) for kind in numbers})
        is_same = before is not None and said == before._replace(
            published_at=said.published_at
        )
        if not (is_same and target.record.is_written):
            target.write(said, fence)
        published, deleted = numbers["added"] + numbers["changed"], numbers["deleted"]
        self._status.metrics.files.published.inc(published)
        self._status.metrics.files.deleted.inc(deleted)
        return {
            "files_published": published,
            "files_deleted": deleted,
            **_counts(build),
        }

    def _outcome(
        self,
        state: State,
        missing: Mapping[str, SidecarError],
        counts: Mapping[str, int],
        refusal: RevisionRefused | None = None,
    ) -> Outcome:
        """
        Return the outcome of a cycle that has published, or had nothing to do.
        """
        self._status.show(refused={}, **state.facts)
        names = ("files_published", "files_deleted", "files_healed")
        counts = counts if any(counts.get(name) for name in names) else {}
        if refusal is not None:
            return replace(self._refused(refusal), counts=counts)
        if missing:
            return Outcome(
                "partial",
                counts=counts,
                why=explain(missing, state.files),
                is_enough=self._shortage.cycles >= LASTING_CYCLES,
            )
        return Outcome("changed" if counts else "unchanged", self._revision, counts)


def compare(
    before: Mapping[str, Content], after: Mapping[str, Content]
) -> dict[str, list[str]]:
    """
    Return what changes between two states, by kind; what is adopted counts as added,
    and restoring a damaged file changes nothing.
    """
    other = [path for path, file in after.items() if before.get(path, file) is not file]
    return {
        "added": [path for path in after if path not in before],
        "changed": [path for path in other if not is_held(before[path], after[path])],
        "deleted": [path for path in before if path not in after],
    }


def _counts(build: Build) -> dict[str, int]:
    work = build.work
    return {
        "files_missing": len(build.missing),
        "keys_skipped": len(build.state.skipped),
        "downloaded_bytes": work.downloaded_bytes,
    }
