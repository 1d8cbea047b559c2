"""
The gate between a snapshot and the link: its verdict on the newest commit, and what an empty volume
gets instead of a refused one: the newest commit before it that the gate accepts, along first
parents.

git-sync fetches each candidate by its hash, like a pinned commit. If the server does not allow
that, git-sync fetches all of them once, with the history of the ref.
"""

from __future__ import annotations

from git_sync_wrapper.publish import Build, Volume
from git_sync_wrapper.sidecar import Parts
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.gate.gate import Finding, RevisionRefused, Undecided
from sidecar_runtime.logs import get_logger

COMMITS_BACK = 20
# How long to wait before the gate judges again while nothing is published yet.
ONCE_MORE_SECONDS = 1.0
LFS = "is a Git LFS pointer instead of the file: git-sync fetches no LFS content"

log = get_logger("gate")


class Judge:
    """
    Asks the gate, and remembers what it says about the newest commit.

    Attributes:
        refusal: Why the newest commit is not published; None if it is.
        why_nothing: Why not even an older one is published.
        undecided: The missing verdict behind a refusal or a fallback: the gate must judge again.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._judged: list[str] = []
        self.refusal: RevisionRefused | None = None
        self.why_nothing = ""
        self.undecided: Undecided | None = None

    @property
    def is_due(self) -> bool:
        """
        Whether the gate should judge a refused commit again.
        """
        gate = self._parts.gate
        return gate is not None and any(gate.is_due(commit) for commit in self._judged)

    def note(self, refusal: RevisionRefused | None, why_nothing: str = "") -> None:
        """
        Note the refusal of the newest commit; None if the gate accepts it.
        """
        self.refusal = refusal
        self.why_nothing = f": the gate refuses {refusal.revision}{why_nothing}" if refusal else ""
        if self._parts.gate is not None:
            self._parts.gate.rest(is_refused=refusal is not None)

    def judge(
        self, commit: str, volume: Volume, fence: Fence, *, is_urgent: bool
    ) -> tuple[Build, RevisionRefused | None]:
        """
        Make a snapshot of the newest commit, which is checked out, and let the gate judge it.

        Args:
            is_urgent: Whether nothing is published, or a one-shot must end: then repeatedly missing
                verdicts count as a refusal.

        Raises:
            Undecided: There is no verdict, and consumers have an older commit in the meantime.
            CycleAbandoned: The fence was revoked.
        """
        self._judged.clear()
        self.undecided = None
        return self._judge(commit, volume, fence, is_urgent=is_urgent)

    def _judge(
        self, commit: str, volume: Volume, fence: Fence, *, is_urgent: bool = True
    ) -> tuple[Build, RevisionRefused | None]:
        build = volume.build(commit, self._parts.engine.worktree, fence)
        gate = self._parts.gate
        if gate is None:
            return build, None
        self._judged.append(commit)
        refusal: RevisionRefused | None = None
        paths = sorted({*build.changed, *build.links})
        try:
            while True:
                try:
                    refusal = gate.judge(commit, build.path, paths, fence)
                    break
                except Undecided as error:
                    with fence:
                        fence.blame = error
                    if not is_urgent:
                        raise
                    if refusal := gate.silence(commit, error):
                        self.undecided = error
                        break
                # Within this cycle: like git-sync, the process may exit at its first failure.
                fence.wait(ONCE_MORE_SECONDS)
        except BaseException:
            volume.drop(build)
            raise
        with fence:
            fence.blame = None
        return build, refusal and _with_pointers(refusal, build)

    def fall_back(self, refusal: RevisionRefused, volume: Volume, fence: Fence) -> Build | None:
        """
        Return the newest earlier commit that the gate accepts; None if there is none.

        Raises:
            Undecided: There is none, and some commit got no verdict.
            SidecarError: A candidate cannot be fetched now; the caller should try again.
            CycleAbandoned: The fence was revoked.
        """
        found = self._search(refusal.revision, volume, fence)
        if isinstance(found, Build):
            log.warning("gate_fallback", name=found.commit, refused=refusal.revision)
            return found
        self.note(refusal, found)
        if self.undecided is not None:
            raise self.undecided
        return None

    def _search(self, refused: str, volume: Volume, fence: Fence) -> Build | str:
        """
        Return the fallback, or why there is none, after the refused commit's hash.
        """
        engine = self._parts.engine
        if engine.is_pinned:
            log.warning("fallback_unusable", revision=refused, reason="pinned")
            return ", which GITSYNC_REF pins"
        commit, is_deep = refused, False
        for _ in range(COMMITS_BACK):
            commit = engine.parent(commit, fence)
            if not commit:
                return " and all commits before it"
            try:
                is_deep = check_out(self._parts, commit, fence, is_deep=is_deep)
            except SidecarError as error:
                if error.reason not in ("ref_not_found", "submodule_missing"):
                    raise
                log.warning("fallback_unusable", revision=commit, reason=error.reason)
                return f", and {commit} cannot be checked out: {error.message}"
            build, refusal = self._judge(commit, volume, fence)
            if refusal is None:
                return build
            volume.drop(build)
        return f" and the {COMMITS_BACK} commits before it"


def check_out(parts: Parts, commit: str, fence: Fence, *, is_deep: bool = False) -> bool:
    """
    Check out a commit of the ref's history; return whether the history had to be fetched for it.

    Args:
        is_deep: Whether the history was fetched already.

    Raises:
        SidecarError: ``ref_not_found`` if the commit is not in the history; else as the engine.
    """
    engine, logins = parts.engine, parts.logins
    if not is_deep:
        try:
            engine.run(logins, fence, ref=commit)
        except SidecarError as error:
            if error.reason != "ref_not_found":
                raise
            engine.run(logins, fence, depth=str(COMMITS_BACK + 1))
        else:
            return False
    # Without a depth, git requests nothing from the server that it already has.
    engine.run(logins, fence, ref=commit, depth="0")
    return True


def _with_pointers(refusal: RevisionRefused, build: Build) -> RevisionRefused:
    """
    Return a refusal that names LFS pointers as what they are.
    """
    named = refusal.paths.intersection(build.pointers)
    findings = [
        Finding(found.path, None, LFS) if found.path in named else found
        for found in refusal.findings
    ]
    return RevisionRefused(refusal.revision, findings) if named else refusal
