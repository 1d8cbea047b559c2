"""
Older commits, for runs that began with them: brought beside what is shown, when a consumer asks.

git-sync fetches and checks out each, as it would a pinned one, so that its files are those that it
had when it was shown. The gate is not asked: it let pass what came of it.
"""

from __future__ import annotations

import os
import time

from git_sync_wrapper.asking.history import History
from git_sync_wrapper.context import Context
from git_sync_wrapper.engine.heal import throw_away
from git_sync_wrapper.fallback import check_out
from git_sync_wrapper.published.volume import Volume
from sidecar_runtime.asking.answers import Answers
from sidecar_runtime.asking.asked import Asked
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.logs import get_logger

log = get_logger("asked")


class Asking:
    """
    Answers consumers of one volume, cycle for cycle; belongs to one thread.
    """

    def __init__(self, context: Context, asked: Asked) -> None:
        self._context = context
        self._asked = asked
        self._answers = Answers(context.options.root, context.metrics.asked, asked)
        # Of one operation: a bring takes up to nine, and all of them are within one cycle.
        self._seconds = min(
            context.options.sync_timeout_seconds, context.settings.timeout_seconds / 10
        )
        self._volume: Volume | None = None
        self._history: History | None = None
        self._is_away = True
        """Whether git-sync's checkout may be of another commit than the shown one."""

    def follow(self, volume: Volume | None, fence: Fence) -> None:
        """
        Answer beside the snapshots of a volume from now on, and nowhere without one.

        Raises:
            CycleAbandoned: The fence was revoked; another thread answers there.
        """
        if volume is not self._volume:
            self.close()
        if volume is not None:
            self._answers.follow(volume.store, volume.has, fence)
            if self._volume is None:
                self._history = History(self._context, volume, self._seconds)
            self._volume = volume

    def close(self) -> None:
        """
        Answer no more; what was brought stays.
        """
        self._answers.close()
        self._volume = self._history = None

    def note_outage(self, error: SidecarError) -> None:
        """
        Note that the remote fails: its backoff decides when it is asked again.
        """
        self._answers.note_outage(error)

    def bring(self, fence: Fence, *, began: float, is_refused: bool) -> None:
        """
        Bring what is waited for, as much as a cycle has time for; a failure is the answer to
        whoever waits.

        git-sync's checkout is that of the shown commit again at the end: it is repaired from it.

        Args:
            began: When the cycle did; one that has taken long leaves it to the next.
            is_refused: Whether the gate refuses the newest commit, whose checkout may stay.

        Raises:
            SidecarError: The volume fails.
            CycleAbandoned: The fence was revoked.
        """
        volume, history = self._volume, self._history
        if volume is None or history is None:
            return
        self._answers.note_outage(None)
        if self._asked.waiting() and time.monotonic() - began > self._seconds:
            self._asked.wake()
            return
        shown = volume.published().commit
        for commit in self._answers.due(fence):
            with self._answers.answering(commit):
                if not shown:
                    raise SidecarError("commit_not_shown", "nothing is shown here yet")
                if not volume.has(commit):
                    history.require(commit, shown, fence)
                    self._is_away = True
                    self._bring(commit, volume, fence)
        if self._is_away and shown and not is_refused:
            self._return(shown, fence)
        self._context.metrics.asked.kept.set(volume.asked_count)

    def _return(self, shown: str, fence: Fence) -> None:
        """
        Let git-sync check out what is shown; where that fails, the next cycle tries.
        """
        try:
            if os.path.basename(self._context.engine.worktree()) != shown:
                self._check_out(shown, fence)
            self._is_away = False
        except SidecarError as error:
            log.warning("checkout_failed", revision=shown, reason=error.reason, error=error.message)

    def _check_out(self, commit: str, fence: Fence) -> None:
        check_out(self._context.engine, commit, fence, seconds=self._seconds)

    def _bring(self, commit: str, volume: Volume, fence: Fence) -> None:
        """
        Bring one commit beside what is shown; a crash half-way leaves what the next start sweeps.
        """
        started, engine = time.monotonic(), self._context.engine
        if volume.lacking_bytes() > 0:
            volume.drop_asked(fence)
        if volume.lacking_bytes() > 0:
            raise SidecarError(
                "asked_too_much",
                f"the volume has no room for {commit} beside what is shown and in use",
                "Raise the size of the volume (emptyDir: sizeLimit).",
            )
        try:
            self._check_out(commit, fence)
            if os.path.basename(engine.worktree()) != commit:
                raise SidecarError("commit_missing", f"{commit} is a tag, and not a commit")
            volume.keep_asked(commit, engine.worktree(), fence, engine.check_whole)
        except SidecarError as error:
            if error.reason == "target_full":
                throw_away(engine.root)
            raise
        log.info("revision_brought", revision=commit, seconds=round(time.monotonic() - started, 3))
