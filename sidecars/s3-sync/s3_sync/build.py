"""
Builds: a folder is brought up to date with a state, as far as the state can be read;
then the gate, if there is one, judges it.

A gate stops a change, never a pod: if nothing is published yet, or only the newest
state could repair what is, and the gate refuses that state, the newest state that it
accepts is published instead, until it accepts a newer one.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import NamedTuple

from s3_sync.layout import Layout
from s3_sync.listing import ListingSource
from s3_sync.names import is_held, not_held, revision_of
from s3_sync.plan import State, Work
from s3_sync.published import PARTIAL
from s3_sync.readiness import Status
from s3_sync.reasons import ObjectError, is_of_one_release
from s3_sync.release.source import ReleaseSource
from s3_sync.settings import Settings
from s3_sync.tree import Build, Fill
from s3_sync.unread import UnreadFiles, explain
from s3_sync.volume import Volume
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.gate.gate import Gate, RevisionRefused, Undecided
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.files import FULL_ERRORS, TargetError

log = get_logger("cycle")


class Parts(NamedTuple):
    """
    What cycles work with on one open volume.
    """

    settings: Settings
    status: Status
    source: ListingSource | ReleaseSource
    gate: Gate | None
    volume: Volume
    layout: Layout


class Builder:
    """
    Builds the states of one source on one volume, and asks the gate about them; belongs
    to one thread.

    Args:
        show: Tells what is published now.

    Attributes:
        unread: What could not be read.
    """

    def __init__(self, parts: Parts, show: Callable[[Fence], None]) -> None:
        self._parts = parts
        self._show = show
        self.unread = UnreadFiles(parts.status, parts.settings.interval_seconds)
        # The revision that was refused last, the name under which, and the files that
        # the gate has named in it.
        self._refused = "", ""
        self._named: set[str] = set()

    async def repair(self, state: State, until: float, fence: Fence) -> OSError | None:
        """
        Fetch damaged files again that the source still has, into what consumers see;
        return why the volume took no more of them: a build that follows meets that
        again, and can make room.
        """
        shown = self._parts.layout.shown
        error: OSError | None = None
        if not shown.damaged:
            return error
        files = state.files
        # Only files that this state has unchanged: others would be a mix of two states.
        # What rests was tried before, and would take time from everything that follows.
        known = shown.damaged & (files.keys() - self.unread.resting)
        same = [path for path in known if is_held(shown.files[path], files[path])]
        fill = Fill(shown, fence, until)
        try:
            await self._fetch(same, state, fill)
        except OSError as found:
            error = found
        # The files of a release fail together, as the build does that follows.
        if not state.is_whole:
            self.unread.note(files, shown.intact, fill.failed)
        return error

    async def _fetch(self, paths: list[str], state: State, fill: Fill) -> None:
        try:
            await self._parts.source.fetch(paths, state, fill, self.unread.errors)
        finally:
            self._parts.status.metrics.downloaded.inc(fill.downloaded_bytes)

    async def build(
        self, state: State, work: Work, until: float, fence: Fence
    ) -> Build:
        """
        Bring a tree up to date with a state: what is shown, file by file, or a new
        snapshot.

        Args:
            work: The difference to what is shown; of it, the deletions are confirmed.

        Raises:
            SidecarError: The source fails, or too little of the state can be read.
            OSError: The volume fails.
        """
        layout = self._parts.layout
        prefix = self._parts.settings.prefix
        # Deletions are confirmed first, before downloads that take minutes: the second
        # listing says something only right after the first. What is listed, but can be
        # no file any more, needs no second look.
        gone = set[str]()
        if work.delete:
            gone = await self._parts.source.confirm_deletions(work.delete, fence)
            gone |= {path for path in work.delete if prefix + path in state.skipped}
        # Before the build: make_room empties this very set (in place).
        unsure = [path for path in work.delete if path not in gone]
        try:
            build = await self._fill(state, gone, until, fence)
            # What is missing is what the tree lacks now, for whatever reason: a file
            # that failed may have been linked, and one that was not tried rests.
            errors = {**self.unread.errors, **build.fill.failed}
            tried = [path for path in errors if path in state.files]
            left = not_held(tried, state.files, build.fill.tree.intact)
            build.missing = {path: errors[path] for path in left}
            for path in unsure:
                build.missing[path] = ObjectError(
                    "object_changing",
                    f"{path!r} is missing from one listing but not from the next",
                )
            # Too little is no state at all, so nothing stands in for the rest yet.
            self._require(build)
        except (SidecarError, OSError):
            layout.undo(fence)
            raise
        # The name comes last: it is that of the files which are there then.
        layout.stand_in(build, fence)
        build.name = name_of(build)
        return build

    async def _fill(
        self, state: State, gone: set[str], until: float, fence: Fence
    ) -> Build:
        """
        Bring a tree up to date with a state by links and downloads; if the volume is
        full, make room as long as there is something to remove.

        Args:
            gone: Files that no state has any more.

        Raises:
            SidecarError: The source fails as a whole.
            OSError: The volume fails, or is too small.
        """
        layout = self._parts.layout
        files = state.files
        while True:
            # Each try has a new Build and Fill, but goes on with the tree of earlier ones.
            full: OSError | None = None
            build = Build(state, gone)
            tree = layout.begin(build, fence)
            self._show(fence)  # in place, the record says now that a change is going on
            build.fill = Fill(tree, fence, until)
            try:
                # Links first: they cost nothing, and what they bring is not downloaded.
                # Not the plan's list, which is of what is shown: this tree may be another
                # one, and links have filled a part of it.
                left = layout.reuse(files, tree, fence)
                later = self.unread.resting
                await self._fetch(
                    [path for path in left if path not in later], state, build.fill
                )
            except OSError as error:
                if error.errno not in FULL_ERRORS:
                    raise
                full = error
            finally:
                if not state.is_whole:  # the files of a release fail together
                    self.unread.note(files, tree.intact, build.fill.failed)
                self.unread.show(state.skipped)
            # Room is made only now that it is known to be needed: what is retained has
            # readers.
            if (full is not None or _lacks_room(build)) and layout.make_room(
                fence, build
            ):
                continue
            if full:
                raise full
            return build

    # --- what could not be read

    def _require(self, build: Build) -> None:
        """
        Raises:
            SidecarError: The tree must not be published as the state.
        """
        state = build.state
        missing = build.missing
        # Files that were not tried say nothing about S3 or the state; so this comes
        # first, and the next cycle goes on.
        if build.fill.unreached:
            raise SidecarError(
                "cycle_timeout",
                f"{len(build.fill.unreached)} of {len(state.files)} files were not read "
                "in time",
                "The next cycle goes on with them. If this is no first sync, raise "
                f"{self._parts.settings.variable_prefix}TIMEOUT.",
            )
        # All of a release or none.
        if state.is_whole:
            build.fill.raise_first()
        # Where consumers have nothing, or would lose what they have, half of a listing
        # is worse than an error that names the cause.
        shown = self._parts.layout.shown
        is_bare = self._parts.layout.record.published is None
        would_lose = not shown.damaged.isdisjoint(missing)
        if (is_bare or would_lose) and len(missing) * 2 > len(state.files):
            raise explain(missing, state.files)

    # --- judging

    def recall(self, state: State) -> RevisionRefused | None:
        """
        Return the gate's refusal of a state, unless it should be asked again.
        """
        revision, name = self._refused
        gate = self._parts.gate
        # What is due may change the folder that the gate was asked about.
        due = self.unread.errors.keys() - self.unread.resting
        if gate is None or revision != state.revision or due:
            return None
        return gate.recall(name)

    async def judge(self, build: Build, until: float, fence: Fence) -> Build:
        """
        Return the build to publish: this one, or what the gate accepts instead of it.

        Raises:
            RevisionRefused: What is published stays, or there is nothing that the gate
                accepts; the next cycle starts from what is left in the folder.
            Undecided: There is no verdict, and the gate should be asked again first.
        """
        refusal = self._ask(build, fence)
        if refusal is None:
            return build
        # What it named before is of use for the same state only, and only until somebody
        # has changed the gate: then they send SIGHUP.
        refused = build.state.revision
        if refused != self._refused[0] or fence.is_asked_for:
            self._named.clear()
        self._refused = refused, build.name
        # A gate stops a change, never a pod (see :func:`s3_sync.plan.decide`).
        if self._parts.status.readiness.ready:
            raise refusal
        source = self._parts.source
        if isinstance(source, ReleaseSource):
            rest = await self._earlier(source, until, fence)
        else:
            rest = self._without_refused(build, refusal, fence)
        if rest is None:
            raise refusal
        log.warning(
            "gate_fallback",
            name=rest.name,
            refused=refused,
            files_missing=len(rest.missing),
        )
        rest.fallback = refused
        rest.refusal = refusal
        return rest

    def _ask(self, build: Build, fence: Fence) -> RevisionRefused | None:
        """
        Return why a build is refused, if it is not published yet.

        Raises:
            Undecided: There is no verdict, and the gate should be asked again first.
        """
        gate = self._parts.gate
        tree = build.fill.tree
        published = self._parts.layout.record.published
        shown = self._parts.layout.shown
        # What is published passed, or nobody asked then: asking now would change nothing.
        if gate is None or (published is not None and build.name == published.name):
            return None
        files = shown.files if published is not None else {}
        changed = [path for path, held in tree.files.items() if files.get(path) != held]
        try:
            refusal = gate.judge(build.name, tree.path, changed, fence)
            tree.purge(fence)  # the gate's command may have changed files
            for path in tree.altered(tree.files):
                raise TargetError(
                    "target_failed",
                    f"the gate's command, or another process, changed {path!r} in .s3-sync",
                    "Find out what writes to .s3-sync.",
                )
            return refusal
        except Undecided as error:
            silence = gate.silence(build.name, error)
            # Whoever is ready can wait for a verdict; a one-shot ends, so silence is its
            # answer.
            is_ready = self._parts.status.readiness.ready
            if silence is None or (is_ready and not self._parts.settings.one_shot):
                raise
            return silence

    def _without_refused(
        self, build: Build, refusal: RevisionRefused | None, fence: Fence
    ) -> Build | None:
        """
        Remove the files that the gate names until it accepts the rest; None if it does
        not. Some gates name one file a run: if the cycle's time is up before they are
        through, the next cycle does not ask about those again.
        """
        tree = build.fill.tree
        while refusal:
            left = set(tree.files)
            named = refusal.paths & left
            self._named |= named
            if not named or left <= self._named:
                return None
            for path in self._named & left:
                tree.delete(path, fence)
                build.missing[path] = refusal
            build.name = name_of(build)
            refusal = self._ask(build, fence)
        return build

    async def _earlier(
        self, source: ReleaseSource, until: float, fence: Fence
    ) -> Build | None:
        """
        Build the newest earlier release that the gate accepts; None if there is none.
        """
        gate = self._parts.gate
        # The newest first. A refusal that is known costs no download.
        for revision in source.earlier():
            if gate and gate.recall(revision) is not None:
                continue
            try:
                state = await source.find(revision, self._parts.volume, fence)
                build = await self.build(state, Work(), until, fence)
            except SidecarError as error:
                if not is_of_one_release(error.reason):
                    raise
                log.warning("fallback_unusable", revision=revision, reason=error.reason)
                continue
            if self._ask(build, fence) is None:
                return build
        return None


def _lacks_room(build: Build) -> bool:
    """
    Whether an object did not fit that is smaller than the whole volume: for a larger
    one, no room is made.
    """
    files = build.state.files
    total_bytes = shutil.disk_usage(build.fill.tree.fd).total
    return any(
        files[path].size_bytes < total_bytes
        for path, why in build.fill.failed.items()
        if why.reason == "target_full"
    )


def name_of(build: Build) -> str:
    """
    Return the name of what a tree holds: that of its state, with an appendix if it has
    kept more; equal names have equal files.
    """
    known = () if build.missing else build.state.files
    left = {
        path: file
        for path, file in build.fill.tree.files.items()
        if path not in known and path not in build.gone
    }
    if build.missing:
        return PARTIAL + revision_of(left)
    return (
        f"{build.state.revision}-{revision_of(left)}" if left else build.state.revision
    )
