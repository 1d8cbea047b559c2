"""
Asks the gate about builds, and finds what it accepts instead of a refused one.

A gate stops a change, never a pod: if nothing is published yet, or only the newest state could
repair what is, and the gate refuses that state, the newest state that it accepts is published
instead, until it accepts a newer one.
"""

from __future__ import annotations

import os

from s3_sync.build import Build, Builder
from s3_sync.folder.record import partial_name
from s3_sync.folder.target import Target
from s3_sync.listing import ListingSource
from s3_sync.plan import Plan, State
from s3_sync.problems import Problems
from s3_sync.reasons import is_of_current_release, is_refusal
from s3_sync.release.source import ReleaseSource
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.gate.gate import Gate, RevisionRefused, Undecided
from sidecar_runtime.logs import get_logger

log = get_logger("gate")


class Gatekeeper:
    """
    Decides with the gate, if there is one, which build is published.

    Args:
        one_shot: A one-shot must end, so a gate that stays undecided counts as a refusal.
    """

    def __init__(
        self,
        gate: Gate | None,
        target: Target,
        source: ListingSource | ReleaseSource,
        builder: Builder,
        *,
        one_shot: bool,
    ) -> None:
        self._gate = gate
        self._target = target
        self._source = source
        self._builder = builder
        self._one_shot = one_shot
        # The revision that was refused last, and the name under which.
        self._refused = "", ""

    def recall(self, state: State, problems: Problems) -> RevisionRefused | None:
        """
        Return the gate's refusal of a state, unless it should be asked again.
        """
        revision, name = self._refused
        if self._gate is None or revision != state.revision:
            return None
        if problems.errors.keys() - problems.resting:
            return None
        return self._gate.recall(name)

    def judge(self, build: Build, fence: Fence) -> RevisionRefused | None:
        """
        Ask the gate about a state that is not published yet; return why it is refused.

        Raises:
            Undecided: There is no verdict, and the gate should be asked again first.
        """
        gate, shown, is_known = self._gate, self._target.shown, self._target.published is not None
        if gate is None:
            return None
        if is_known and shown is not None and build.name == os.path.basename(shown.path):
            gate.rest()
            return None
        before = shown.files if shown is not None and is_known else {}
        changed = [path for path, held in build.folder.files.items() if before.get(path) != held]
        try:
            refusal = gate.judge(build.name, build.folder.path, changed, fence)
            if refusal is not None:
                self._refused = build.state.revision, build.name
            return refusal
        except Undecided as error:
            silence = gate.silence(build.name, error)
            has_time = self._target.is_good and not self._one_shot
            if has_time or silence is None:
                raise
            build.undecided = error
            return silence

    def rest(self) -> None:
        """
        Note that the newest revision is the published one.
        """
        if self._gate is not None:
            self._gate.rest()

    async def fall_back(
        self, build: Build, refusal: RevisionRefused, until: float, fence: Fence
    ) -> Build | None:
        """
        Return what the gate accepts instead of a refused state: the rest of a listing, or the
        newest earlier release. None if there is nothing; what was built stays for the next cycle.

        Raises:
            Undecided: There is nothing, and no verdict.
            SidecarError: S3 refuses to read an earlier release.
        """
        refused, undecided = build.state.revision, build.undecided
        rest = (
            await self._earlier(until, fence)
            if build.state.is_whole
            else self._without_refused(build, refusal, fence)
        )
        if rest is None:
            if undecided is not None:
                raise undecided
            return None
        assert self._gate is not None
        self._gate.rest(is_refused=True)
        log.warning(
            "gate_fallback", name=rest.name, refused=refused, files_missing=len(rest.missing)
        )
        rest.fallback, rest.undecided = refused, undecided
        return rest

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
            refusal = self.judge(build, fence)
        return build

    async def _earlier(self, until: float, fence: Fence) -> Build | None:
        """
        Build the newest earlier release that the gate accepts; None if there is none.

        Raises:
            SidecarError: There is none, and S3 refuses to read one of them.
        """
        assert isinstance(self._source, ReleaseSource) and self._gate is not None
        unread = None
        for revision in self._source.earlier():
            if self._gate.recall(revision) is not None:
                continue
            try:
                state = await self._source.find(revision, fence)
                build = await self._builder.build(state, Plan((), ()), until, fence)
                if self.judge(build, fence) is None:
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
