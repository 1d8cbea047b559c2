"""
Builds: a folder is brought up to date with a state, as far as the state can be read.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from s3_sync.changes import compare
from s3_sync.folder.folder import Folder
from s3_sync.folder.record import UNFINISHED, Published, now, partial_name
from s3_sync.folder.target import Target
from s3_sync.listing import ListingSource
from s3_sync.metrics import Status
from s3_sync.plan import Plan, State, is_held, make_plan
from s3_sync.problems import Problems, explain
from s3_sync.release.source import ReleaseSource
from s3_sync.s3.refusals import ObjectError
from s3_sync.settings import Settings
from s3_sync.work import Work
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.gate.gate import Undecided
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.files import FULL_ERRORS

log = get_logger("cycle")


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


class Builder:
    """
    Builds the states of one source on one target; belongs to one thread.

    Attributes:
        blocked: Paths that a file of another owner blocked the last time.
    """

    def __init__(
        self,
        settings: Settings,
        status: Status,
        target: Target,
        source: ListingSource | ReleaseSource,
        problems: Problems,
    ) -> None:
        self._settings = settings
        self._metrics = status.metrics
        self._target = target
        self._source = source
        self._problems = problems
        self.blocked: frozenset[str] = frozenset()

    async def build(self, state: State, plan: Plan, until: float, fence: Fence) -> Build:
        """
        Bring a folder up to date with a state: links to what is shown, downloads, and the
        predecessors of files that cannot be read.

        A failure in place leaves a mixture of two states, which is recorded as unfinished.

        Raises:
            SidecarError: The source fails, or too little of the state can be read.
            OSError: The volume fails.
        """
        target, snapshots, before = self._target, self._target.snapshots, self._target.published
        shown = target.shown.files if target.shown is not None else {}
        folder = target.begin()
        if snapshots is not None:
            _clear(folder, state, fence)
            same = [path for path, file in state.files.items() if is_held(shown.get(path), file)]
            snapshots.link([path for path in same if path not in folder.files], folder, fence)
        gone = await self._source.confirm(plan.delete, fence) if plan.delete else set()
        if before is None:  # files of another source stand in for no object
            gone |= set(plan.delete).intersection(state.kept)
            target.begin_first(fence)
        damaged = target.damage.files if snapshots is None else set()
        put = make_plan(state, folder.files, damaged=damaged, may_delete=False).put
        work = Work(folder, fence, until, damaged, blocked=set(self.blocked))
        if snapshots is None and before is not None:
            self._mark(before, state, len(put), gone & folder.files.keys(), work)
        resting = self._problems.resting
        try:
            await self._fetch([path for path in put if path not in resting], state, work, gone)
        except SidecarError:
            self._note(state, put, work)
            if snapshots is None and before is not None:
                if compare(target.damage.recorded, folder.files):
                    left = make_plan(state, folder.files, may_delete=False).put
                    self._mark(before, state, len(left), gone & folder.files.keys(), work)
                elif target.published != before:
                    target.write(before, {}, fence)
            raise
        self._note(state, put, work)
        if snapshots is None:
            _delete(gone, work)
        unsure = {p: _unsure(p) for p in plan.delete if p not in gone and p not in state.kept}
        left = make_plan(state, folder.files, damaged=folder.damaged(damaged), may_delete=False).put
        errors = {**self._problems.errors, **work.failed}
        missing = {path: errors[path] for path in left if path in errors} | unsure
        self._require(state, missing, work)
        if snapshots is None:
            self._give_up(missing, work)
        elif before is not None:
            stay = [*missing, *state.kept]
            if self._settings.delete == "none":
                stay += shown.keys() - state.files.keys()
            snapshots.link([path for path in stay if path not in folder.files], folder, fence)
        name = partial_name(folder.files) if missing else state.revision
        return Build(state, name, work, missing)

    async def _fetch(
        self, paths: Sequence[str], state: State, work: Work, gone: Collection[str]
    ) -> None:
        """
        Fetch files; if the volume is full, make room as long as there is something to remove.

        Raises:
            SidecarError: The source fails as a whole.
            OSError: The volume fails, or is too small.
        """
        snapshots = self._target.snapshots
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
            has_room = snapshots is not None and snapshots.make_room(work.fence)
            if snapshots is None and gone & work.folder.files.keys():
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

    def _mark(
        self, before: Published, state: State, puts: int, gone: Collection[str], work: Work
    ) -> None:
        """
        Record that consumers see neither the old nor the new state from now on, if a change in
        place takes more than one step. On a full volume the next change tries again: deletions may
        make room.

        Args:
            before: What was published before the cycle.
            puts: How many files are missing or out of date.
            gone: The files to delete.
        """
        changes = puts + len(gone)
        if changes < 2:
            return
        if (before.aim, before.missing) == (state.revision, changes):  # retries change nothing
            return
        unfinished = before._replace(
            revision="",
            aim=state.revision,
            name=UNFINISHED,
            missing=changes,
            fallback="",
            published_at=now(),
            files=len(work.folder.files) - len(gone),
        )
        try:
            self._target.write(unfinished, {}, work.fence)
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
        self.show(state, work.blocked)
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
        published, damaged = self._target.published, self._target.damage.files
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

    async def heal(self, state: State, until: float, fence: Fence) -> None:
        """
        Restore damaged files that a waiting change does not replace.
        """
        shown, damaged = self._target.shown, self._target.damage.files
        if shown is None or not damaged:
            return
        held, files = shown.files, state.files
        same = [p for p in damaged if p in files and is_held(held.get(p), files[p])]
        work = Work(shown, fence, until, damaged)
        await self._source.fetch(same, state, work, self._problems.errors)
        self.count_healed()

    def count_healed(self, changed: Collection[str] = ()) -> int:
        """
        Count the damaged files that are as they were again.
        """
        shown = self._target.shown
        assert shown is not None
        healed = len(self._target.damage.look_again(shown).difference(changed))
        self._metrics.files.healed.inc(healed)
        return healed

    def show(self, state: State, blocked: Collection[str]) -> None:
        """
        Show which keys have no file on disk, and why.
        """
        prefix = "" if state.is_whole else self._settings.prefix
        keys = [f"{prefix}{path}" for path in sorted(blocked) if path in state.files]
        self._problems.show(state.skipped, keys)


def _clear(folder: Folder, state: State, fence: Fence) -> None:
    """
    Remove what does not belong to a state from a folder that nobody reads.
    """
    stale = [
        path
        for path, held in folder.files.items()
        if path not in state.files or not is_held(held, state.files[path])
    ]
    for path in stale:
        folder.delete(path, fence)


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
