"""
Builds: a folder is brought up to date with a state, as far as the state can be read; then the gate,
if there is one, judges it.

A gate stops a change, never a pod: if nothing is published yet, or only the newest state could
repair what is, and the gate refuses that state, the newest state that it accepts is published
instead, until it accepts a newer one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from s3_sync.download import Work
from s3_sync.folder.folder import Folder
from s3_sync.folder.record import UNFINISHED, Published, now, partial_name
from s3_sync.folder.snapshots import SnapshotLayout
from s3_sync.folder.target import Target
from s3_sync.listing import ListingSource
from s3_sync.metrics import Status
from s3_sync.plan import Plan, State, is_held, make_plan
from s3_sync.problems import Problems, explain
from s3_sync.reasons import is_of_current_release, is_refusal
from s3_sync.release.source import ReleaseSource
from s3_sync.s3.refusals import ObjectError
from s3_sync.settings import Settings
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.gate.gate import Gate, RevisionRefused, Undecided
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.files import FULL_ERRORS

log = get_logger("cycle")

Source = ListingSource | ReleaseSource


@dataclass(slots=True)
class Build:
    """
    A folder that was brought up to date with a state, as far as possible.

    Args:
        name: The name of the revision, or of a partial state.
        missing: Files of the state that are missing or out of date, with the error.
        fallback: The refused revision that it replaces; empty if this is the newest.
        refusal: Why that was refused.
        undecided: Why the gate must be asked again about the newest revision.
    """

    state: State
    name: str
    work: Work
    missing: dict[str, SidecarError]
    fallback: str = ""
    refusal: RevisionRefused | None = None
    undecided: Undecided | None = None

    @property
    def folder(self) -> Folder:
        return self.work.folder


class Builder:
    """
    Builds the states of one source on one target, and asks the gate about them; belongs to one
    thread.

    Attributes:
        problems: What could not be read.
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
        self._metrics = status.metrics
        self._target = target
        self._source = source
        self.problems = Problems(status, settings.interval_seconds)
        self._gate = gate
        # The revision that was refused last, and the name under which.
        self._refused = "", ""
        self.blocked: frozenset[str] = frozenset()

    async def build(self, state: State, plan: Plan, until: float, fence: Fence) -> Build:
        """
        Bring a folder up to date with a state: what is shown, file by file, or a new snapshot.

        Args:
            plan: The difference to what is shown; of it, the deletions are confirmed.

        Raises:
            SidecarError: The source fails, or too little of the state can be read.
            OSError: The volume fails.
        """
        snapshots, is_known = self._target.snapshots, self._target.published is not None
        gone = await self._source.confirm(plan.delete, fence) if plan.delete else set()
        key = self._settings.prefix
        gone |= {p for p in plan.delete if state.skipped.get(key + p) == "name_clash"}
        if not is_known:  # files of another source stand in for no object
            gone |= set(plan.delete).intersection(state.kept)
        if snapshots is None:
            work = await self._in_place(state, gone, until, fence)
        else:
            work = await self._beside(snapshots, state, until, fence)
        unsure = {p: _unsure(p) for p in plan.delete if p not in gone and p not in state.kept}
        damaged = work.folder.damaged(work.damaged)
        left = make_plan(state, work.folder.files, damaged=damaged, may_delete=False).put
        errors = {**self.problems.errors, **work.failed}
        missing = {path: errors[path] for path in left if path in errors} | unsure
        self._require(state, missing, work)
        if snapshots is None:
            self._give_up(missing, work)
        elif is_known:
            shown = snapshots.shown.files if snapshots.shown is not None else {}
            stay = shown.keys() - state.files.keys() if self._settings.delete == "none" else ()
            snapshots.link([*missing, *state.kept, *stay], work.folder, fence)
        name = partial_name(work.folder.files) if missing else state.revision
        return Build(state, name, work, missing)

    async def heal(self, state: State, until: float, fence: Fence) -> None:
        """
        Restore damaged files that a waiting change does not replace.
        """
        shown, damaged = self._target.shown, self._target.damaged
        if shown is None or not damaged:
            return
        held, files = shown.files, state.files
        same = [p for p in damaged if p in files and is_held(held.get(p), files[p])]
        work = Work(shown, fence, until, damaged)
        await self._source.fetch(same, state, work, self.problems.errors)
        self._target.count_healed()

    # --- the two layouts

    async def _in_place(self, state: State, gone: set[str], until: float, fence: Fence) -> Work:
        """
        Replace the files of the target one by one; deletions come last.
        """
        target, before = self._target, self._target.published
        folder, damaged = target.shown, target.damaged
        assert folder is not None
        work = Work(folder, fence, until, damaged)
        put = make_plan(state, folder.files, damaged=damaged, may_delete=False).put
        if before is None:
            target.begin_first(fence)
        else:
            self._mark(before, state.revision, len(set(put) - self.blocked), work, gone)
        try:
            await self._fetch(put, state, work, gone)
        except (SidecarError, OSError):
            left = make_plan(state, folder.files, may_delete=False).put
            if before is not None and folder.files != target.recorded:
                self._mark(before, state.revision, len(left), work, gone)
            elif before is not None and target.published != before:  # no file was replaced
                target.write(before, {}, fence)
            raise
        same: set[str] = set()
        assert target.volume is not None
        if (fold := target.volume.fold) is not None:  # another spelling's file is there now
            taken = set(map(fold, state.files))
            same = {path for path in gone if fold(path) in taken}
        for path in same:
            folder.forget(path)
        _delete(gone - same, work)
        return work

    async def _beside(
        self, snapshots: SnapshotLayout, state: State, until: float, fence: Fence
    ) -> Work:
        """
        Fill a new folder beside what is shown, with links to it and downloads.
        """
        shown = snapshots.shown.files if snapshots.shown is not None else {}
        folder = snapshots.begin()
        for path, held in list(folder.files.items()):  # of an earlier state
            if path not in state.files or not is_held(held, state.files[path]):
                folder.delete(path, fence)
        same = [path for path, file in state.files.items() if is_held(shown.get(path), file)]
        while True:
            try:
                snapshots.link([p for p in same if p not in folder.files], folder, fence)
                break
            except OSError as error:
                if error.errno not in FULL_ERRORS or not snapshots.make_room(fence):
                    raise
                folder.purge()  # a copy that was cut short
        work = Work(folder, fence, until)
        await self._fetch([path for path in state.files if path not in folder.files], state, work)
        return work

    async def _fetch(
        self, put: Sequence[str], state: State, work: Work, gone: Collection[str] = ()
    ) -> None:
        """
        Fetch files; if the volume is full, make room as long as there is something to remove.

        Raises:
            SidecarError: The source fails as a whole.
            OSError: The volume fails, or is too small.
        """
        resting = self.problems.resting
        paths = [path for path in put if path not in resting]
        try:
            while True:
                full: OSError | None = None
                try:
                    await self._source.fetch(paths, state, work, self.problems.errors)
                except OSError as error:
                    if error.errno not in FULL_ERRORS:
                        raise
                    full = error
                too_large = [p for p, e in work.failed.items() if e.reason == "target_full"]
                if full is None and not too_large:
                    return
                if not self._make_room(gone, work):
                    if full is not None:
                        raise full
                    return
                for path in too_large:
                    del work.failed[path]
                held, files = work.folder.files, state.files
                paths = [
                    path
                    for path in paths
                    if path not in work.failed
                    and (path in too_large or not is_held(held.get(path), files[path]))
                ]
        finally:
            self._note(state, put, work)

    def _make_room(self, gone: Collection[str], work: Work) -> bool:
        """
        Remove what consumers need least; False if there is nothing to remove.
        """
        if self._target.snapshots is not None:
            return self._target.snapshots.make_room(work.fence)
        if work.folder.files.keys().isdisjoint(gone):
            return False
        log.warning("target_full", files_to_delete=len(gone))
        _delete(gone, work)
        return True

    def _mark(self, before: Published, aim: str, puts: int, work: Work, gone: set[str]) -> None:
        """
        Record a change of several files in place as unfinished: consumers see neither the old nor
        the new state. A full volume must not prevent it, because deletions may make room.
        """
        deletions = len(gone & work.folder.files.keys())
        changes, files = puts + deletions, len(work.folder.files) - deletions
        is_single = changes < 2 and self._target.published == before
        if is_single or (before.aim, before.missing) == (aim, changes):  # retries change nothing
            return
        left = Published("", aim, UNFINISHED, changes, "", now(), files)
        try:
            self._target.write(left, {}, work.fence)
        except OSError as error:
            if error.errno not in FULL_ERRORS:
                raise
        self._target.show()

    # --- what could not be read

    def _note(self, state: State, put: Sequence[str], work: Work) -> None:
        """
        Note what was read and what was not; the files of a release fail together.
        """
        self._metrics.downloaded.inc(work.downloaded_bytes)
        if state.is_whole:
            return
        known = self.problems.errors
        news = work.failed.keys() | known.keys()
        tried = {p: state.files[p] for p in put if p in news and p not in work.unreached}
        resting = self.problems.resting - work.failed.keys()
        self.problems.note({p: f for p, f in tried.items() if p not in resting}, work.failed)
        self.problems.keep(put)

    def _require(self, state: State, missing: Mapping[str, SidecarError], work: Work) -> None:
        """
        Raises:
            SidecarError: The folder must not be published as the state.
        """
        prefix = self._settings.prefix
        self.blocked = frozenset(work.blocked)
        self.problems.show(state.skipped, [f"{prefix}{path}" for path in sorted(work.blocked)])
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

    # --- judging

    def recall(self, state: State) -> RevisionRefused | None:
        """
        Return the gate's refusal of a state, unless it should be asked again.
        """
        revision, name = self._refused
        is_due = self.problems.errors.keys() - self.problems.resting
        if self._gate is None or revision != state.revision or is_due:
            return None
        return self._gate.recall(name)

    async def judge(self, build: Build, until: float, fence: Fence) -> Build:
        """
        Return the build to publish: this one, or what the gate accepts instead of it.

        Raises:
            RevisionRefused: What is published stays, or there is nothing that the gate accepts;
                then what was built stays for the next cycle.
            Undecided: There is no verdict, and the gate should be asked again first.
            SidecarError: S3 refuses to read an earlier release.
        """
        refusal = self._ask(build, fence)
        if refusal is None or self._gate is None:
            return build
        await self.heal(build.state, until, fence)
        if self._target.is_good:
            if self._target.snapshots is not None:
                self._target.snapshots.drop()
            raise refusal
        refused, undecided = build.state.revision, build.undecided
        rest = (
            await self._earlier(self._gate, until, fence)
            if build.state.is_whole
            else self._without_refused(build, refusal, fence)
        )
        if rest is None:
            raise undecided or refusal
        self._gate.rest(is_refused=True)
        missing = len(rest.missing)
        log.warning("gate_fallback", name=rest.name, refused=refused, files_missing=missing)
        rest.fallback, rest.refusal, rest.undecided = refused, refusal, undecided
        return rest

    def rest(self) -> None:
        """
        Note that the newest revision is the published one.
        """
        if self._gate is not None:
            self._gate.rest()

    def _ask(self, build: Build, fence: Fence) -> RevisionRefused | None:
        """
        Return why a build is refused, if it is not published yet.

        Raises:
            Undecided: There is no verdict, and the gate should be asked again first.
        """
        gate, target, snapshots = self._gate, self._target, self._target.snapshots
        if gate is None or snapshots is None:
            return None
        before = snapshots.shown if target.published is not None else None
        if before is not None and build.name == snapshots.name:
            gate.rest()
            return None
        files = before.files if before is not None else {}
        changed = [path for path, held in build.folder.files.items() if files.get(path) != held]
        try:
            refusal = gate.judge(build.name, build.folder.path, changed, fence)
            if refusal is not None:
                self._refused = build.state.revision, build.name
            return refusal
        except Undecided as error:
            silence = gate.silence(build.name, error)
            if silence is None or (target.is_good and not self._settings.one_shot):
                raise
            build.undecided = error
            return silence

    def _without_refused(
        self, build: Build, refusal: RevisionRefused | None, fence: Fence
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
            refusal = self._ask(build, fence)
        return build

    async def _earlier(self, gate: Gate, until: float, fence: Fence) -> Build | None:
        """
        Build the newest earlier release that the gate accepts; None if there is none.

        Raises:
            SidecarError: There is none, and S3 refuses to read one of them.
        """
        assert isinstance(self._source, ReleaseSource)
        unread = None
        for revision in self._source.earlier():
            if gate.recall(revision) is not None:
                continue
            try:
                state = await self._source.find(revision, fence)
                build = await self.build(state, Plan((), ()), until, fence)
                if self._ask(build, fence) is None:
                    return build
            except Undecided:
                raise
            except SidecarError as error:
                if not is_of_current_release(error.reason):
                    raise
                unread = unread or (error if is_refusal(error.reason) else None)
                log.warning("fallback_unusable", revision=revision, reason=error.reason)
        if unread is not None:
            raise unread
        return None


def _delete(paths: Collection[str], work: Work) -> None:
    """
    Delete files of a folder.

    Raises:
        OSError: The volume fails as a whole.
    """
    ours = [path for path in paths if path in work.folder.files]
    for path in ours:
        try:
            work.folder.delete(path, work.fence)
        except OSError as error:
            work.fail_on_disk(path, error)
    work.folder.clear(set(paths).difference(ours), work.fence)


def _unsure(path: str) -> ObjectError:
    return ObjectError(
        "object_changing",
        f"{path!r} is missing from one listing but not from the next",
        "This resolves itself once the writer has finished.",
    )
