"""
One cycle: lock → inspect → read → settle → brake → plan → build → judge → publish → record.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from s3_sync.brake import Brake
from s3_sync.changes import compare, tell
from s3_sync.digest import Content
from s3_sync.folder.folder import Folder
from s3_sync.folder.layout import Layout
from s3_sync.folder.record import UNFINISHED, Published, now, partial_name
from s3_sync.folder.target import Target
from s3_sync.keys import compile_filter
from s3_sync.listing import ListingSource, Reading, is_settled, settle
from s3_sync.metrics import SyncMetrics
from s3_sync.plan import Plan, State, is_held, make_plan, without_clashes
from s3_sync.problems import Problems, explain
from s3_sync.reasons import is_of_current_release, is_refusal
from s3_sync.release.source import ReleaseSource
from s3_sync.s3.refusals import ObjectError
from s3_sync.settings import Settings
from s3_sync.status import Status
from s3_sync.work import Work
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.gate.checks import Undecided
from sidecar_runtime.gate.gate import Gate, RevisionRefused
from sidecar_runtime.health import Outcome
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.errors import FULL_ERRORS

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
        recorded: The files of the last record, to compare with.
        missing: The files that the last cycle lacked, and in how many cycles in a row.
        has_waited: Whether all files waited for a newly unreadable one.
        blocked: Paths that a file of another owner blocked.
        refused: The revision that the gate refused last, and the name under which.
    """

    reading: Reading | None = None
    recorded: Mapping[str, Content] = field(default_factory=dict)
    missing: frozenset[str] = frozenset()
    same_cycles: int = 0
    has_waited: bool = False
    blocked: frozenset[str] = frozenset()
    refused: tuple[str, str] = ("", "")


@dataclass(slots=True)
class Build:
    """
    A folder that was brought up to date with a state, as far as possible.

    Args:
        name: The name of the revision, or of a partial state.
        missing: Files of the state that are missing or out of date, with the error.
        fallback: The refused revision that it replaces; empty if this is the newest.
        undecided: Why the gate must be asked again about the newest revision.
    """

    state: State
    name: str
    work: Work
    missing: dict[str, SidecarError]
    fallback: str = ""
    undecided: Undecided | None = None

    @property
    def folder(self) -> Folder:
        return self.work.folder


class Sync:
    """
    Brings one target up to date with one source, cycle by cycle; belongs to one thread.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: SyncMetrics,
        status: Status,
        target: Target,
        source: ListingSource | ReleaseSource,
        gate: Gate | None,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._status = status
        self._target = target
        self._source = source
        self._gate = gate
        self._problems = Problems(metrics, status, settings.interval_seconds)
        self._brake = Brake(settings.max_delete_percent)
        self._memory = Memory()

    async def cycle(self, layout: Layout, fence: Fence) -> Outcome:
        """
        Run one cycle on a locked target.

        Raises:
            SidecarError: The cycle failed; what is published stays.
            OSError: The volume fails.
            CycleAbandoned: The fence was revoked.
        """
        until = time.monotonic() + READING_SHARE * self._settings.timeout_seconds
        self._inspect(layout, fence)
        asked_at = time.monotonic()
        state = without_clashes(await self._source.read(fence), self._target.fold)
        self._problems.meet(state.files, is_asked_for=fence.is_asked_for)
        self._show(state, self._memory.blocked)
        if not self._is_settled(state, asked_at):
            await self._heal(layout, state, until, fence)
            return Outcome("settling", self._revision)
        if (held := self._brake_on(layout, state, fence)) is not None:
            await self._heal(layout, state, until, fence)
            return Outcome("held", self._revision, problem=held, is_enough=True)
        if (refusal := self._recall(state)) is not None and self._is_good(layout):
            return self._refused(refusal)
        plan = self._plan(layout, state)
        if self._is_done(layout, state, plan):
            layout.finish(fence)
            return self._unchanged(state, plan)
        build = await self._build(layout, state, plan, until, fence)
        if self._must_wait(layout, build):
            return Outcome("settling", self._revision, self._counts(build))
        refusal = self._judge(layout, build, fence)
        if refusal is not None:
            self._memory.refused = state.revision, build.name
            if self._is_good(layout):
                layout.drop()
                return self._refused(refusal)
            build = await self._fall_back(layout, build, refusal, until, fence)
        counts = self._publish(layout, build, fence)
        return self._conclude(build, refusal, counts)

    def start_over(self, layout: Layout | None) -> None:
        """
        Begin on another volume or layout; None while another process has the lock.
        """
        shown = layout.shown if layout is not None else None
        self._memory = Memory(recorded=dict(shown.files) if shown is not None else {})
        self._problems.retry_all()
        self._metrics.held.set(0)

    # --- before

    @property
    def _revision(self) -> str:
        published = self._target.published
        return published.revision if published is not None else ""

    def _inspect(self, layout: Layout, fence: Fence) -> None:
        """
        Inspect a part of what is shown, and undo what needs no source.
        """
        damaged = self._target.inspect()
        layout.tidy(fence, is_damaged=bool(damaged))
        if damaged:  # a cycle may take minutes
            self._target.show()

    def _is_settled(self, state: State, asked_at: float) -> bool:
        """
        Whether a listing has stayed the same for S3_SYNC_SETTLE.
        """
        seconds, source = self._settings.settle_seconds, self._source
        if not seconds or not isinstance(source, ListingSource):
            return True
        published, before = self._target.published, self._memory.reading
        quiet_seconds = source.quiet_seconds() if published is None else 0.0
        self._memory.reading = reading = settle(
            before,
            state.files,
            asked_at,
            time.monotonic(),
            seconds=seconds,
            quiet_seconds=quiet_seconds,
        )
        is_acted_upon = published is not None and published.aim == state.revision
        return is_acted_upon or is_settled(reading, seconds)

    def _brake_on(self, layout: Layout, state: State, fence: Fence) -> SidecarError | None:
        """
        Return why a listing is held back; None if it may be applied.

        Files that are lost already, and those that the filters leave out, are not missed.
        """
        settings, shown = self._settings, layout.shown
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
        lost = self._target.damaged.intersection(gone)
        gone = [path for path in gone if path not in lost]
        held = self._brake.judge(
            gone, len(shown.files) - len(lost), is_asked_for=fence.is_asked_for
        )
        self._metrics.held.set(held.files if held is not None else 0)
        return held

    def _plan(self, layout: Layout, state: State) -> Plan:
        shown, is_known = layout.shown, self._target.published is not None
        may_delete = self._settings.delete != "none"
        # Before the first publish, the files on disk may belong to another source.
        kept = state.kept if is_known else ()
        if shown is None:
            return make_plan(state, {}, may_delete=False)
        for path in self._target.damaged - state.files.keys():
            if path in kept or not may_delete:  # lost: it cannot be downloaded again
                shown.forget(path)
        self._target.damaged &= shown.files.keys()
        return make_plan(
            state._replace(kept=kept),
            shown.files,
            damaged=self._target.damaged,
            foreign=layout.foreign() if self._settings.delete == "all" else (),
            may_delete=may_delete,
        )

    def _is_done(self, layout: Layout, state: State, plan: Plan) -> bool:
        """
        Whether what is published is the state as far as it can be read, and says so.
        """
        published = self._target.published
        return (
            published is not None
            and layout.shown is not None
            and self._target.is_written
            and self._is_good(layout)
            and (published.aim, published.fallback) == (state.revision, "")
            and published.missing == len(plan.put)
            and not (plan.delete or published.is_filtered)
            and not set(plan.put) - self._problems.resting
        )

    def _is_good(self, layout: Layout) -> bool:
        """
        Whether what is published may stay: damage that is left now needs another state.
        """
        return self._target.published is not None and not (self._target.lost or layout.problem)

    # --- building

    async def _build(
        self, layout: Layout, state: State, plan: Plan, until: float, fence: Fence
    ) -> Build:
        """
        Bring a folder up to date with a state: links to what is shown, downloads, and the
        predecessors of files that cannot be read.

        Raises:
            SidecarError: The source fails, or too little of the state can be read.
            OSError: The volume fails.
        """
        target, shown = self._target, layout.shown
        folder = layout.begin(state.revision, fence)
        is_shown = folder is shown
        if not is_shown:
            _clear(folder, state, fence)
            held = shown.files if shown is not None else {}
            same = [p for p, file in state.files.items() if is_held(held.get(p), file)]
            layout.link([path for path in same if path not in folder.files], folder, fence)
        gone = await self._source.confirm(plan.delete, fence) if plan.delete else set()
        damaged = target.damaged if is_shown else set()
        put = make_plan(state, folder.files, damaged=damaged, may_delete=False).put
        resting = self._problems.resting
        work = Work(folder, fence, until, damaged, blocked=set(self._memory.blocked))
        before = target.published
        if is_shown and before is not None and len(put) + len(gone) > 1:
            self._mark(state, len(put) + len(gone), fence)
        try:
            await self._fetch(
                [path for path in put if path not in resting], state, layout, work, gone
            )
        except SidecarError:
            self._note(state, put, work)
            if before is not None and not compare(self._memory.recorded, folder.files):
                target.record(before, {}, fence)
            raise
        self._note(state, put, work)
        if is_shown:
            _delete(gone, work)
        unsure = {p: _unsure(p) for p in plan.delete if p not in gone and p not in state.kept}
        left = make_plan(state, folder.files, damaged=folder.damaged(damaged), may_delete=False).put
        errors = {**self._problems.errors, **work.failed}
        missing = {path: errors[path] for path in left if path in errors} | unsure
        self._require(state, missing, work)
        await_paths = [*missing, *state.kept] if before is not None else []
        if not is_shown:
            if before is not None and self._settings.delete == "none" and shown is not None:
                await_paths += shown.files.keys() - state.files.keys()
            layout.link([p for p in await_paths if p not in folder.files], folder, fence)
        else:
            self._give_up(missing, work)
        name = partial_name(folder.files) if missing else state.revision
        return Build(state, name, work, missing)

    async def _fetch(
        self, paths: Sequence[str], state: State, layout: Layout, work: Work, gone: Collection[str]
    ) -> None:
        """
        Fetch files; if the volume is full, make room as long as there is something to remove.

        Raises:
            SidecarError: The source fails as a whole.
            OSError: The volume fails, or is too small.
        """
        while True:
            error: OSError | None = None
            try:
                await self._source.fetch(paths, state, work, self._problems.errors)
            except OSError as found:
                if found.errno not in FULL_ERRORS:
                    raise
                error = found
            full = [path for path, why in work.failed.items() if why.reason == "target_full"]
            if error is None and not full:
                return
            has_room = layout.make_room(work.fence)
            if not has_room and work.folder is layout.shown and gone & work.folder.files.keys():
                log.warning("target_full", files_to_delete=len(gone))
                _delete(gone, work)
                has_room = True
            if not has_room and error is not None:
                raise error
            if not has_room:
                return
            for path in full:
                del work.failed[path]
            paths = [
                path
                for path in paths
                if path not in work.failed
                and (path in full or not is_held(work.folder.files.get(path), state.files[path]))
            ]

    def _mark(self, state: State, missing: int, fence: Fence) -> None:
        """
        Record that consumers see neither the old nor the new state from now on. On a full volume
        the next change tries again: deletions may make room.
        """
        published = self._target.published
        assert published is not None
        unfinished = published._replace(
            revision="", aim=state.revision, name=UNFINISHED, missing=missing, fallback=""
        )
        try:
            self._target.record(unfinished._replace(published_at=now()), {}, fence)
        except OSError as error:
            if error.errno not in FULL_ERRORS:
                raise
        self._target.show()

    def _note(self, state: State, put: Sequence[str], work: Work) -> None:
        """
        Note what was read and what was not; the files of a release fail together.
        """
        self._metrics.downloaded.inc(work.downloaded_bytes)
        if state.is_whole:
            return
        known = self._problems.errors
        news = work.failed.keys() | known.keys()
        tried = {p: state.files[p] for p in put if p in news and p not in work.unreached}
        resting = self._problems.resting - work.failed.keys()
        self._problems.note({p: f for p, f in tried.items() if p not in resting}, work.failed)
        self._problems.keep(put)

    def _require(self, state: State, missing: Mapping[str, SidecarError], work: Work) -> None:
        """
        Raises:
            SidecarError: The folder must not be published as the state.
        """
        self._show(state, work.blocked)
        if work.unreached:
            limit = f"{self._settings.variable_prefix}TIMEOUT"
            raise SidecarError(
                "cycle_timeout",
                f"{len(work.unreached)} of {len(state.files)} files were not read in time",
                f"The next cycle goes on with them. Raise {limit} if this is no first sync.",
            )
        if state.is_whole:
            for error in work.failed.values():
                raise error
        published, damaged = self._target.published, self._target.damaged
        is_bare = published is None or bool(damaged & missing.keys())
        if is_bare and len(missing) * 2 > len(state.files):
            raise explain(missing, state.files)

    def _give_up(self, missing: Collection[str], work: Work) -> None:
        """
        Remove files in place that cannot be restored now, and those of another source that would
        stand in for files that could not be read.
        """
        folder = work.folder
        lost = folder.files.keys() & set(missing)
        if self._target.published is not None:
            lost &= folder.damaged(lost)
        for path in lost:
            if self._settings.delete == "none":
                folder.forget(path)
            else:
                folder.delete(path, work.fence)

    async def _heal(self, layout: Layout, state: State, until: float, fence: Fence) -> None:
        """
        Restore damaged files that a waiting change does not replace.
        """
        shown = layout.shown
        if shown is None or not self._target.damaged:
            return
        files = state.files
        same = [
            path
            for path in self._target.damaged
            if path in files and is_held(shown.files.get(path), files[path])
        ]
        work = Work(shown, fence, until, self._target.damaged)
        await self._source.fetch(same, state, work, self._problems.errors)
        self._count_healed(work)

    def _must_wait(self, layout: Layout, build: Build) -> bool:
        """
        Whether the files may belong to two states: an upload, an outage or a policy change happened
        during the cycle. Only where a state is shown at once; never in two cycles in a row, nor if
        the last cycle lacked the same files. The first publish waits for uploads only.
        """
        memory, missing = self._memory, build.missing
        is_first = self._target.published is None
        newly = {
            path
            for path in missing.keys() - memory.missing
            if missing[path].reason == "object_changing" or not is_first
        }
        same = frozenset(
            path for path, error in missing.items() if error.reason != "object_changing"
        )
        memory.same_cycles = memory.same_cycles + 1 if same == memory.missing else 1
        memory.missing = frozenset(missing)
        is_shown = build.folder is layout.shown
        memory.has_waited = bool(newly) and not memory.has_waited and not is_shown
        return memory.has_waited

    # --- the gate

    def _recall(self, state: State) -> RevisionRefused | None:
        """
        Return the gate's refusal of a state, unless it should be asked again.
        """
        revision, name = self._memory.refused
        if self._gate is None or revision != state.revision:
            return None
        if self._problems.errors.keys() - self._problems.resting:
            return None
        return self._gate.recall(name)

    def _judge(self, layout: Layout, build: Build, fence: Fence) -> RevisionRefused | None:
        """
        Ask the gate about a state that is not published yet; return why it is refused.

        Raises:
            Undecided: There is no verdict, and the gate should be asked again first.
        """
        gate, shown = self._gate, layout.shown
        if gate is None:
            return None
        if build.folder is shown and self._target.published is not None:
            gate.rest()
            return None
        before = shown.files if shown is not None else {}
        changed = [path for path, held in build.folder.files.items() if before.get(path) != held]
        try:
            return gate.judge(build.name, build.folder.path, changed, fence)
        except Undecided as error:
            silence = gate.silence(build.name, error)
            has_time = self._is_good(layout) and not self._settings.one_shot
            if has_time or silence is None:
                raise
            build.undecided = error
            return silence

    async def _fall_back(
        self, layout: Layout, build: Build, refusal: RevisionRefused, until: float, fence: Fence
    ) -> Build:
        """
        Return what the gate accepts instead of a refused state: the rest of a listing, or the
        newest earlier release.

        Raises:
            SidecarError: There is nothing.
        """
        refused, undecided = build.state.revision, build.undecided
        rest = (
            await self._earlier(layout, until, fence)
            if build.state.is_whole
            else self._without_refused(layout, build, refusal, fence)
        )
        if rest is None:
            layout.drop()
            self._status.show(refused=refusal.facts())
            raise undecided or refusal
        assert self._gate is not None
        self._gate.rest(is_refused=True)
        log.warning(
            "gate_fallback", name=rest.name, refused=refused, files_missing=len(rest.missing)
        )
        rest.fallback, rest.undecided = refused, undecided
        return rest

    def _without_refused(
        self, layout: Layout, build: Build, refusal: RevisionRefused | None, fence: Fence
    ) -> Build | None:
        """
        Remove the files that the gate names until it accepts the rest; None if it does not.
        """
        while refusal is not None:
            named = refusal.paths & build.folder.files.keys()
            if not named or len(named) == len(build.folder.files):
                return None
            for path in named:
                build.folder.delete(path, fence)
                build.missing[path] = SidecarError("file_refused", f"the gate refused {path!r}")
            build.name = partial_name(build.folder.files)
            refusal = self._judge(layout, build, fence)
        return build

    async def _earlier(self, layout: Layout, until: float, fence: Fence) -> Build | None:
        """
        Build the newest earlier release that the gate accepts; None if there is none.

        Raises:
            SidecarError: There is none, and S3 refuses to read one of them.
        """
        assert isinstance(self._source, ReleaseSource)
        unread = None
        for revision in self._source.earlier():
            try:
                state = await self._source.find(revision, fence)
                build = await self._build(layout, state, Plan((), ()), until, fence)
                if self._judge(layout, build, fence) is None:
                    return build
            except Undecided:
                raise
            except SidecarError as error:
                if not is_of_current_release(error.reason):
                    raise
                if is_refusal(error.reason):
                    unread = unread or error
                log.warning("fallback_unusable", revision=revision, reason=error.reason)
        if unread is not None:
            raise unread
        return None

    # --- after

    def _publish(self, layout: Layout, build: Build, fence: Fence) -> dict[str, int]:
        """
        Show a build and record it; return the numbers for the log.
        """
        target, memory = self._target, self._memory
        if build.folder is not layout.shown or layout.problem:
            layout.publish(build.name, build.folder, fence)
            target.damaged = set()
        folder = layout.shown
        assert folder is not None
        folder.end_cycle(fence)
        memory.blocked = frozenset(build.work.blocked)
        for path, error in build.work.failed.items():
            if path not in build.missing:
                raise error
        healed = self._count_healed(build.work)
        changes = compare(memory.recorded, folder.files, build.work.adopted)
        said = Published(
            "" if build.missing else build.name,
            build.fallback or build.state.revision,
            build.name,
            len(build.missing),
            build.fallback,
            now(),
            len(folder.files),
        )
        before = target.published
        is_same = before is not None and said == before._replace(published_at=said.published_at)
        if not is_same or changes or build.work.adopted or healed or not target.is_written:
            target.record(said, changes.counts(), fence)
            memory.recorded = dict(folder.files)
            tell(build.name, changes, self._status)
        layout.finish(fence)
        self._status.show(**build.state.facts)
        self._metrics.published.inc(len(changes.added) + len(changes.changed) + healed)
        self._metrics.deleted.inc(len(changes.deleted))
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
        self._status.show(refused={})
        if not plan.put:
            self._memory.missing, self._memory.same_cycles = frozenset(), 0
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

    def _count_healed(self, work: Work) -> int:
        """
        Count the damaged files that are as they should be again.
        """
        before = len(self._target.damaged)
        self._target.look_again()
        healed = before - len(self._target.damaged) if work.damaged else 0
        self._metrics.healed.inc(healed)
        return healed

    def _show(self, state: State, blocked: Collection[str]) -> None:
        """
        Show which keys have no file on disk, and why.
        """
        prefix = "" if state.is_whole else self._settings.prefix
        keys = [f"{prefix}{path}" for path in sorted(blocked) if path in state.files]
        self._problems.show(state.skipped, keys)


def _clear(folder: Folder, state: State, fence: Fence) -> None:
    """
    Remove what is damaged, or does not belong to a state, from a folder that nobody reads.
    """
    for path in folder.damaged(folder.files):
        folder.forget(path)
    stale = [
        path
        for path, held in folder.files.items()
        if path not in state.files or not is_held(held, state.files[path])
    ]
    for path in stale:
        folder.delete(path, fence)


def _delete(paths: Collection[str], work: Work) -> None:
    """
    Delete files of a folder; one of another owner that stays is only logged, because no consumer
    needs its absence.

    Raises:
        OSError: The volume fails as a whole.
    """
    for path in paths:
        is_ours = path in work.folder.files
        try:
            work.folder.delete(path, work.fence)
        except OSError as error:
            if is_ours:
                work.fail_on_disk(path, error)
            else:
                log.warning("leftover_kept", name=path, error=error.strerror)


def _unsure(path: str) -> ObjectError:
    return ObjectError(
        "object_changing",
        f"{path!r} is missing from one listing but not from the next",
        "This resolves itself once the writer has finished.",
    )
