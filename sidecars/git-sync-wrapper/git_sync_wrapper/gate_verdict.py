"""
The gate between a checkout and its snapshot: its verdict on the newest commit, and what
an empty volume gets instead of a refused one: the newest commit before it that the gate
accepts, along first parents. The gate's command may write to the checkout, which shares
no file with a snapshot.

git-sync fetches and checks out each candidate by its hash, like a pinned commit. If the
server refuses hashes, git-sync fetches the whole history of the ref first, once.
"""

from __future__ import annotations

import math
import stat

from git_sync_wrapper import snapshot
from git_sync_wrapper.plan import Wait
from git_sync_wrapper.sidecar import Parts
from git_sync_wrapper.snapshot import Rows
from git_sync_wrapper.volume import Volume
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.gate.gate import Finding, RevisionRefused, Undecided
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.files import explained

COMMITS_BACK = 20
# How long to wait before the gate judges again while nothing is published yet.
ONCE_MORE_SECONDS = 1.0

log = get_logger("gate")


class Judge:
    """
    Asks the gate, and remembers what it says about the newest commit.

    Attributes:
        refusal: Why the newest commit is not published; None if it is.
        why_nothing: Why not even an older one is published.
        undecided: The missing verdict behind a refusal or a fallback: the gate must
            judge again.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._judged: list[str] = []
        self._parents: dict[str, str] = {}
        """Of refused commits, which git-sync has removed meanwhile."""
        self.refusal: RevisionRefused | None = None
        self.why_nothing = ""
        self.undecided: Undecided | None = None

    @property
    def wait(self) -> Wait | None:
        """
        The refusal of the newest commit, and when the gate should judge it again; None
        if it is accepted.
        """
        gate = self._parts.gate
        if gate is None or self.refusal is None:
            return None
        return Wait(self.refusal, min(map(gate.due_at, self._judged), default=math.inf))

    def note(self, refusal: RevisionRefused | None, why_nothing: str = "") -> None:
        """
        Note the refusal of the newest commit; None if the gate accepts it.
        """
        self.refusal = refusal
        self.why_nothing = (
            f": the gate refuses {refusal.revision}{why_nothing}" if refusal else ""
        )
        self._parts.metrics.gate.refused.set(refusal is not None)

    def judge(
        self, commit: str, volume: Volume, fence: Fence, *, is_urgent: bool
    ) -> RevisionRefused | None:
        """
        Let the gate judge the newest commit, which is checked out; None if it is
        accepted.

        Args:
            is_urgent: Whether nothing is published, or a one-shot must end: then
                repeatedly missing verdicts count as a refusal.

        Raises:
            Undecided: There is no verdict, and consumers have an older commit in the
                meantime.
            CycleAbandoned: The fence was revoked.
        """
        self._judged.clear()
        self.undecided = None
        return self._judge(commit, volume, fence, is_urgent=is_urgent)

    def _judge(
        self, commit: str, volume: Volume, fence: Fence, *, is_urgent: bool = True
    ) -> RevisionRefused | None:
        gate = self._parts.gate
        folder = self._parts.engine.worktree
        if gate is None:
            return None
        self._judged.append(commit)
        with (
            explained(f"cannot read {folder}"),
            volume.compared(folder) as (checkout, shown),
        ):
            rows = snapshot.rows_of(checkout)
            # A link may lead to a changed file.
            paths = sorted(
                path
                for path, *_, found, is_changed in snapshot.compare(checkout, shown)
                if is_changed or stat.S_ISLNK(found.st_mode)
            )
        while True:
            try:
                refusal = gate.judge(commit, folder, paths, fence)
                break
            except Undecided as error:
                with fence:
                    fence.blame = error
                if not is_urgent:
                    raise
                refusal = gate.silence(commit, error)
                if refusal:
                    self.undecided = error
                    break
            # Within this cycle: like git-sync, the process may exit at its first
            # failure.
            fence.wait(ONCE_MORE_SECONDS)
        with fence:
            fence.blame = None
        return refusal and self._with_filters(refusal, rows, fence)

    def _with_filters(
        self, refusal: RevisionRefused, rows: Rows, fence: Fence
    ) -> RevisionRefused:
        """
        Return a refusal that names files without their filter as what they are.
        """
        lacks = self._parts.engine.unfiltered(rows, fence)
        return RevisionRefused(
            refusal.revision,
            [
                Finding(found.path, None, lacks[found.path])
                if found.path in lacks
                else found
                for found in refusal.every
            ],
        )

    def fall_back(self, refusal: RevisionRefused, volume: Volume, fence: Fence) -> str:
        """
        Check out the newest earlier commit that the gate accepts, and return it; empty
        if there is none.

        Raises:
            Undecided: There is none, and some commit got no verdict.
            SidecarError: A candidate cannot be fetched now; the caller should try
                again.
            CycleAbandoned: The fence was revoked.
        """
        found, why_none = self._search(refusal.revision, volume, fence)
        if found:
            log.warning("gate_fallback", name=found, refused=refusal.revision)
            return found
        self.note(refusal, why_none)
        if self.undecided:
            raise self.undecided
        return ""

    def _search(self, refused: str, volume: Volume, fence: Fence) -> tuple[str, str]:
        """
        Return the fallback, and why there is none, to be read after the refused
        commit's hash.
        """
        engine = self._parts.engine
        gate = self._parts.gate
        if engine.is_hash_or_tag:
            log.warning("fallback_unusable", revision=refused, reason="pinned")
            return "", ", which GITSYNC_REF pins"
        commit = refused
        depth: dict[str, str] = {}
        for _ in range(COMMITS_BACK):
            if commit not in self._parents:
                self._parents[commit] = engine.parent(commit, fence)
            commit = self._parents[commit]
            if not commit:
                return "", " and all commits before it"
            if gate is not None and gate.recall(commit) and commit in self._parents:
                self._judged.append(commit)
                continue
            try:
                try:
                    engine.run(fence, ref=commit, **depth)
                except SidecarError as error:
                    if depth or error.reason != "ref_not_found":
                        raise
                    # Without a depth, git requests nothing from the server that it
                    # already has.
                    depth = {"depth": "0"}
                    engine.run(fence, **depth)
                    engine.run(fence, ref=commit, **depth)
            except SidecarError as error:
                if error.reason not in ("ref_not_found", "submodule_missing"):
                    raise
                log.warning("fallback_unusable", revision=commit, reason=error.reason)
                return "", f", and {commit} cannot be checked out: {error.message}"
            if self._judge(commit, volume, fence) is None:
                return commit, ""
        return "", f" and the {COMMITS_BACK} commits before it"
