"""
Inspects the published files for damage, and repairs them.

Whoever can write to the volume may damage them, and so may a node that loses power. git-sync's
repository on the volume contains all that a repair needs, even if the remote is down. If that
repository is damaged as well, git-sync runs again.
"""

from __future__ import annotations

import time

from git_sync_wrapper.context import Context
from git_sync_wrapper.published.commit import NAMED_PATHS
from git_sync_wrapper.published.volume import Volume
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.logs import get_logger
from sidecar_runtime.printable import counted

# Inspects at every thirtieth poll, but at least this often.
POLLS = 30
SECONDS = 300.0

log = get_logger("inspection")


class Inspection:
    """
    Inspects at every n-th poll, and as often while polls fail and are a backoff apart; while
    anything is damaged; and when this process gains the lock.

    Attributes:
        is_whole: Whether the published commit was found, or repaired, to be whole.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        interval = context.settings.interval_seconds
        self._polls = max(1, min(POLLS, int(SECONDS / interval)))
        self._seconds = self._polls * interval
        self._left = 0
        self._due_at = 0.0
        self._is_holder = False
        self.is_whole = True

    def look_when_due(
        self, commit: str, volume: Volume, fence: Fence, *, is_holder: bool = True
    ) -> None:
        """
        Inspect the published commit if that is due, and repair it if the remote is not needed.

        Args:
            is_holder: Whether this process holds the lock. A standby leaves the repair to the
                holder. Without a list of files it is ready nevertheless: an older version writes
                none, and a rolling update ends that version only once the standby is ready.

        Raises:
            SidecarError: The volume fails.
            CycleAbandoned: The fence was revoked.
        """
        self._left -= 1
        is_same = is_holder == self._is_holder
        self._is_holder = is_holder
        is_early = self._left > 0 and time.monotonic() < self._due_at
        if not commit or (is_early and self.is_whole and is_same and not fence.is_asked_for):
            return
        self._left, self._due_at = self._polls, time.monotonic() + self._seconds
        damaged = volume.look(commit, is_holder=is_holder)
        if damaged == []:
            self.note_whole()
            return
        self._note_damage(commit, damaged, is_holder=is_holder)
        if is_holder and (worktree := self._context.engine.restore(commit, fence)):
            try:
                volume.repair(commit, worktree, fence)
            except SidecarError as error:  # the cycle goes on: a newer commit may be whole
                log.warning("restore_failed", revision=commit, error=error.message)
            else:
                self.note_whole()

    def note_whole(self) -> None:
        """
        Note that the published commit is whole now.
        """
        self.is_whole = True
        self._context.status.damage("")

    def _note_damage(self, commit: str, damaged: list[str] | None, *, is_holder: bool) -> None:
        problem = f"{commit} cannot be checked: the list of its files is missing or incomplete"
        if damaged:
            named = damaged[:NAMED_PATHS]
            if self.is_whole:  # once
                log.warning("damage_found", revision=commit, files=len(damaged), paths=named)
            files = counted(len(damaged), "file")
            problem = f"damaged or missing in {commit}: {files}, such as {named[0]}"
        self.is_whole = False
        if damaged is None and not is_holder:
            self._context.status.damage("", doubt=problem)
        else:
            self._context.status.damage(problem)
