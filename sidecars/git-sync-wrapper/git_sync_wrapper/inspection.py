"""
The look at what is shown: whether it still is what its commit has, and its repair.

Who can write to the volume may damage it, and so may a node that loses power. The repository of
git-sync has all that is needed, so the remote may be down; where that is damaged too, git-sync runs
again.
"""

from __future__ import annotations

from git_sync_wrapper.context import Context
from git_sync_wrapper.published.commit import NAMED_PATHS
from git_sync_wrapper.published.volume import Volume
from sidecar_runtime.fence import Fence
from sidecar_runtime.logs import get_logger

log = get_logger("inspection")


class Inspection:
    """
    Looks at every n-th poll, as long as not all is well, and when this process takes the volume.

    Attributes:
        is_whole: Whether what is shown was found, or made, to be whole.
    """

    def __init__(self, context: Context, polls: int) -> None:
        """
        Args:
            polls: How many there are from one look to the next.
        """
        self._context = context
        self._polls = polls
        self._left = 0
        self._is_holder = False
        self.is_whole = True

    def count_poll(self) -> None:
        """
        Come one poll closer to the next look.
        """
        self._left -= 1

    def look_when_due(
        self, commit: str, volume: Volume, fence: Fence, *, is_holder: bool = True
    ) -> None:
        """
        Look at what is shown, and repair it as far as that is possible without the remote.

        Args:
            is_holder: Whether this process holds the volume. If not, the holder repairs it; and
                where no list tells, this process is ready all the same, as an older version writes
                none, which a rolling update ends no sooner.

        Raises:
            SidecarError: The volume fails.
            CycleAbandoned: The fence was revoked.
        """
        self.count_poll()
        is_same = is_holder == self._is_holder
        self._is_holder = is_holder
        is_early = self._left > 0 and self.is_whole and is_same and not fence.is_asked_for
        if not commit or is_early:
            return
        self._left = self._polls
        damaged = volume.look(commit, is_holder=is_holder)
        if damaged == []:
            self.note_whole()
            return
        self._note_damage(commit, damaged, is_holder=is_holder)
        if is_holder and (worktree := self._context.engine.restore(commit, fence)):
            volume.repair(commit, worktree, fence)
            self.note_whole()

    def note_whole(self) -> None:
        """
        Note that what is shown is whole now.
        """
        self.is_whole = True
        self._context.status.damage("")

    def _note_damage(self, commit: str, damaged: list[str] | None, *, is_holder: bool) -> None:
        problem = f"{commit} is not known to be whole: no list tells what its files were"
        if damaged:
            named = damaged[:NAMED_PATHS]
            if self.is_whole:  # once
                log.warning("damage_found", revision=commit, files=len(damaged), paths=named)
            problem = f"{len(damaged)} files of {commit} are damaged or missing, such as {named[0]}"
        self.is_whole = False
        if damaged is None and not is_holder:
            self._context.status.damage("", doubt=problem)
        else:
            self._context.status.damage(problem)
