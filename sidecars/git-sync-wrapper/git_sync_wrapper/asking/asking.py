"""
Add older commits to the volume on request, for runs that began with them.

git-sync fetches and checks out each like a pinned commit, so its files are the same as when it was
published. The gate does not judge them: it has accepted a later commit.
"""

from __future__ import annotations

import os
import time

from git_sync_wrapper.asking.history import History
from git_sync_wrapper.context import Context
from git_sync_wrapper.engine.heal import remove_stale, throw_away
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
    Answers the requests of a volume's consumers in each cycle; belongs to one thread.
    """

    def __init__(self, context: Context, asked: Asked) -> None:
        self._context = context
        self._asked = asked
        self._answers = Answers(context.options.root, context.metrics.asked, asked)
        # The limit of one operation: a request needs up to nine, all within one cycle.
        self._seconds = min(
            context.options.sync_timeout_seconds, context.settings.timeout_seconds / 10
        )
        self._volume: Volume | None = None
        self._history: History | None = None
        self._is_away = True
        """Whether git-sync's checkout may be of another commit than the published one."""

    def follow(self, volume: Volume | None, fence: Fence) -> None:
        """
        Answer requests for a volume from now on; None stops answering.

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
        Stop answering; commits that were added stay.
        """
        self._answers.close()
        self._volume = self._history = None

    def note_outage(self, error: SidecarError) -> None:
        """
        Note that the remote fails: the backoff decides when it is tried again.
        """
        self._answers.note_outage(error)

    def bring(self, fence: Fence, *, began: float, is_refused: bool) -> None:
        """
        Add the requested commits, as many as a cycle has time for; a failure is reported to the
        consumer that waits.

        Afterwards git-sync's checkout is of the published commit again, because repairs need it.

        Args:
            began: When the cycle began; a cycle that has taken long leaves requests to the next.
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
                    raise SidecarError("commit_not_shown", "nothing is published here yet")
                if not volume.has(commit):
                    history.require(commit, shown, fence)
                    self._is_away = True
                    self._bring(commit, volume, fence)
        if self._is_away and shown and not is_refused:
            self._return(shown, fence)
        self._context.metrics.asked.kept.set(volume.asked_count)

    def _return(self, shown: str, fence: Fence) -> None:
        """
        Let git-sync check out the published commit; if that fails, the next cycle retries.
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
        Add one commit to the volume; leftovers of a crash half-way are removed at the next start.
        """
        started, engine = time.monotonic(), self._context.engine
        if volume.lacking_bytes() > 0:
            remove_stale(engine.root)
        if volume.lacking_bytes() > 0:
            volume.drop_asked(fence)
        if volume.lacking_bytes() > 0:
            raise SidecarError(
                "request_limit",
                f"the volume has no room for {commit} next to the commits that are in use",
                "Free space on the node's disk or enlarge the claim.",
            )
        try:
            self._check_out(commit, fence)
            if os.path.basename(engine.worktree()) != commit:
                raise SidecarError("commit_missing", f"{commit} is a tag, not a commit")
            volume.keep_asked(commit, engine.worktree(), fence, engine.check_whole)
        except SidecarError as error:
            if error.reason == "target_full":
                throw_away(engine.root)
            raise
        log.info(
            "requested_revision_ready",
            revision=commit,
            seconds=round(time.monotonic() - started, 3),
        )
