"""
Builds: a folder is brought up to date with a state, as far as the state can be read;
then the gate, if there is one, judges it.

A gate stops a change, never a pod: if nothing is published yet, or only the newest
state could repair what is, and the gate refuses that state, the newest state that it
accepts is published instead, until it accepts a newer one.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from s3_sync.download import Work
from s3_sync.folder.target import UNFINISHED, Published, Target, now, partial_name
from s3_sync.listing import ListingSource
from s3_sync.metrics import Status
from s3_sync.plan import Plan, State, is_held, not_held
from s3_sync.problems import Problems, explain
from s3_sync.reasons import is_of_current_release
from s3_sync.release.source import ReleaseSource
from s3_sync.s3.refusals import ObjectError
from s3_sync.settings import Settings
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.gate.gate import Gate, RevisionRefused, Undecided
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.files import FULL_ERRORS, TargetError

log = get_logger("cycle")

Source = ListingSource | ReleaseSource


class Parts(NamedTuple):
    """
    What a cycle works with.
    """

    settings: Settings
    status: Status
    target: Target
    source: Source
    gate: Gate | None


@dataclass(slots=True)
class Build:
    """
    A folder that was brought up to date with a state, as far as possible.

    Args:
        name: The name of the revision, or of a partial state.
        missing: Files of the state that are missing or out of date, with the error.
        fallback: The refused revision that it replaces; empty if this is the newest.
        refusal: Why that was refused.
    """

    state: State
    name: str
    work: Work
    missing: dict[str, SidecarError]
    fallback: str = ""
    refusal: RevisionRefused | None = None


class Builder:
    """
    Builds the states of one source on one target, and asks the gate about them; belongs
    to one thread.

    Attributes:
        problems: What could not be read.
    """

    def __init__(self, parts: Parts) -> None:
        self._settings, status, self._target, self._source, self._gate = parts
        self._metrics = status.metrics
        self.problems = Problems(status, self._settings.interval_seconds)
        # The revision that was refused last, and the name under which.
        self._refused = "", ""

    async def repair(self, state: State, until: float, fence: Fence) -> int:
        """
        Fetch damaged files again that the source still has, into what consumers see;
        return how many were restored. Where the volume fails, a build tells, and can
        make room.
        """
        target = self._target
        shown = target.shown
        lost = shown.lost() if shown is not None else []
        if shown is None or not lost:
            return 0
        files, recorded, later = state.files, target.recorded, self.problems.resting
        known = [path for path in lost if path in files and path not in later]
        same = [path for path in known if is_held(recorded.get(path), files[path])]
        work = Work(shown, fence, until)
        with suppress(OSError):
            await self._source.fetch(same, state, work, self.problems.errors)
        if not state.is_whole:
            self.problems.note(files, shown.files, work.failed)
        self._metrics.downloaded.inc(work.downloaded_bytes)
        restored = len(lost) - len(shown.lost())
        self._metrics.files.healed.inc(restored)
        return restored

    async def build(
        self, state: State, plan: Plan, until: float, fence: Fence
    ) -> Build:
        """
        Bring a folder up to date with a state: what is shown, file by file, or a new
        snapshot.

        Args:
            plan: The difference to what is shown; of it, the deletions are confirmed.

        Raises:
            SidecarError: The source fails, or too little of the state can be read.
            OSError: The volume fails.
        """
        snapshots, prefix = self._target.snapshots, self._settings.prefix
        gone = await self._source.confirm(plan.delete, fence) if plan.delete else set()
        gone |= {path for path in plan.delete if prefix + path in state.skipped}
        if snapshots is None:
            work = await self._in_place(state, gone, until, fence)
        else:
            work = await self._fill(state, (), until, fence)
        left = not_held(work.left, state.files, work.folder.files)
        errors = {**self.problems.errors, **work.failed}
        missing = {path: errors[path] for path in left if path in errors}
        said = "is missing from one listing but not from the next"
        unsure = [path for path in plan.delete if path not in gone]
        missing |= {p: ObjectError("object_changing", f"{p!r} {said}") for p in unsure}
        self._require(state, missing, work)
        if snapshots is None:
            self._give_up(missing, work)
            _delete(gone, work)  # once everything else is in place
        else:
            stale = missing if self._target.record.is_of_source else ()
            snapshots.link({*stale, *state.kept}, work.folder, fence)
        name = partial_name(work.folder.files) if missing else state.revision
        return Build(state, name, work, missing)

    async def _in_place(
        self, state: State, gone: set[str], until: float, fence: Fence
    ) -> Work:
        """
        Replace the files of the target one by one.
        """
        target, before, folder = (
            self._target,
            self._target.published,
            self._target.shown,
        )
        assert folder is not None
        left = not_held(state.files, state.files, folder.files)
        deleted = len(gone & folder.files.keys())
        changes, files = deleted + len(left), len(folder.files) - len(gone)
        is_other = before is not None and (changes, files) != (
            before.missing,
            before.files,
        )
        if is_other and (deleted or changes > 1):
            # Consumers will see neither the old nor the new state. A full volume must
            # not prevent it, because deletions may make room.
            begun = Published(
                aim=state.revision,
                name=UNFINISHED,
                missing=changes,
                published_at=now(),
                files=files,
            )
            with suppress(OSError):
                target.write(begun, fence)
            target.show(fence)
        try:
            return await self._fill(state, gone, until, fence)
        except (SidecarError, OSError):
            # no file was replaced
            if before is not None and folder.files == target.recorded:
                target.write(before, fence)
            raise

    async def _fill(
        self, state: State, gone: Collection[str], until: float, fence: Fence
    ) -> Work:
        """
        Bring the target, or a new folder beside what is shown, up to date with a state
        by links and downloads; if the volume is full, make room as long as there is
        something to remove.

        Args:
            gone: Files in place that may be deleted to make room.

        Raises:
            SidecarError: The source fails as a whole.
            OSError: The volume fails, or is too small.
        """
        snapshots, files, later = (
            self._target.snapshots,
            state.files,
            self.problems.resting,
        )
        while True:
            full: OSError | None = None
            folder = self._target.shown if snapshots is None else snapshots.begin()
            assert folder is not None
            work = Work(folder, fence, until)
            try:
                if snapshots is not None:
                    work.left = snapshots.reuse(files, folder, fence)
                else:
                    work.left = not_held(files, files, folder.files)
                put = [path for path in work.left if path not in later]
                await self._source.fetch(put, state, work, self.problems.errors)
            except OSError as error:
                if error.errno not in FULL_ERRORS:
                    raise
                full = error
            finally:
                self._metrics.downloaded.inc(work.downloaded_bytes)
                if not state.is_whole:  # the files of a release fail together
                    self.problems.note(files, folder.files, work.failed)
                self.problems.show(state.skipped)
            failed = work.failed.items()
            large = [
                files[p].size_bytes for p, why in failed if why.reason == "target_full"
            ]
            # for what exceeds the whole volume, no room is made
            most = os.statvfs(folder.fd)
            is_full = full or any(
                size < most.f_blocks * most.f_frsize for size in large
            )
            has_room = (
                gone if snapshots is None else is_full and snapshots.make_room(fence)
            )
            if not (is_full and has_room):
                break
            _delete(gone, work)
            gone = ()  # what could not be deleted makes no room
        if full is not None:
            raise full
        return work

    # --- what could not be read

    def _require(
        self, state: State, missing: Mapping[str, SidecarError], work: Work
    ) -> None:
        """
        Raises:
            SidecarError: The folder must not be published as the state.
        """
        if work.unreached:
            raise SidecarError(
                "cycle_timeout",
                f"{len(work.unreached)} of {len(state.files)} files were not read in time",
                "The next cycle goes on with them. If this is no first sync, raise "
                f"{self._settings.variable_prefix}TIMEOUT.",
            )
        if state.is_whole:
            for error in work.failed.values():
                raise error
        shown = self._target.shown
        lost = shown.lost() if shown is not None else []
        is_bare = self._target.published is None or not missing.keys().isdisjoint(lost)
        if is_bare and len(missing) * 2 > len(state.files):
            raise explain(missing, state.files)

    def _give_up(self, missing: Collection[str], work: Work) -> None:
        """
        Remove files in place that cannot be restored now, and those of another source
        that would stand in for files that could not be read.
        """
        folder, is_known = work.folder, self._target.record.is_of_source
        lost = set(folder.lost() if is_known else folder.files)
        for path in lost.intersection(missing):
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
            RevisionRefused: What is published stays, or there is nothing that the gate
                accepts; then what was built stays for the next cycle.
            Undecided: There is no verdict, and the gate should be asked again first.
        """
        refusal = self._ask(build, fence)
        if refusal is None or self._gate is None:
            return build
        if self._target.is_good(fence):
            if self._target.snapshots is not None:
                self._target.snapshots.drop()
            raise refusal
        refused = build.state.revision
        rest = (
            await self._earlier(self._gate, until, fence)
            if build.state.is_whole
            else self._without_refused(build, refusal, fence)
        )
        if rest is None:
            raise refusal
        missing = len(rest.missing)
        log.warning(
            "gate_fallback", name=rest.name, refused=refused, files_missing=missing
        )
        rest.fallback, rest.refusal = refused, refusal
        return rest

    def _ask(self, build: Build, fence: Fence) -> RevisionRefused | None:
        """
        Return why a build is refused, if it is not published yet.

        Raises:
            Undecided: There is no verdict, and the gate should be asked again first.
        """
        gate, target, snapshots = self._gate, self._target, self._target.snapshots
        folder = build.work.folder
        if gate is None or snapshots is None:
            return None
        shown = snapshots.shown if target.published is not None else None
        if shown is not None and build.name == snapshots.name:
            return None
        files = shown.files if shown is not None else {}
        changed = [
            path for path, held in folder.files.items() if files.get(path) != held
        ]
        try:
            refusal = gate.judge(build.name, folder.path, changed, fence)
            folder.purge(fence)  # the gate's command may have changed files
            for path in folder.damaged(folder.files):
                said = f"the gate's command, or another process, changed {path!r} in .s3-sync"
                raise TargetError(
                    "target_failed", said, "Find out what writes to .s3-sync."
                )
            if refusal is not None:
                self._refused = build.state.revision, build.name
            return refusal
        except Undecided as error:
            silence = gate.silence(build.name, error)
            if silence is None or (
                target.is_good(fence) and not self._settings.one_shot
            ):
                raise
            return silence

    def _without_refused(
        self, build: Build, refusal: RevisionRefused | None, fence: Fence
    ) -> Build | None:
        """
        Remove the files that the gate names until it accepts the rest; None if it does
        not.
        """
        while refusal is not None:
            named = refusal.paths & build.work.folder.files.keys()
            if not named or len(named) == len(build.work.folder.files):
                return None
            for path in named:
                build.work.folder.delete(path, fence)
                build.missing[path] = refusal
            build.name = partial_name(build.work.folder.files)
            refusal = self._ask(build, fence)
        return build

    async def _earlier(self, gate: Gate, until: float, fence: Fence) -> Build | None:
        """
        Build the newest earlier release that the gate accepts; None if there is none.
        """
        assert isinstance(self._source, ReleaseSource)
        for revision in self._source.earlier():
            if gate.recall(revision) is not None:
                continue
            try:
                state = await self._source.find(revision, fence)
                build = await self.build(state, Plan((), ()), until, fence)
            except SidecarError as error:
                if not is_of_current_release(error.reason):
                    raise
                log.warning("fallback_unusable", revision=revision, reason=error.reason)
                continue
            if self._ask(build, fence) is None:
                return build
        return None


def _delete(paths: Collection[str], work: Work) -> None:
    """
    Delete files of a folder. One of another owner may stay: no consumer needs its
    absence.

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
