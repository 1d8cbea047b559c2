"""
Older commits, for runs that began with them: brought beside what is shown, when a consumer asks.

git-sync fetches and checks out each, as it would a pinned one, so that its files are those that it
had when it was shown. The gate is not asked: it let pass what came of it.
"""

from __future__ import annotations

import time
from contextlib import suppress

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
        self._answers = Answers(context.options.root, context.metrics.asked, asked)
        self._volume: Volume | None = None

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
            self._volume = volume

    def close(self) -> None:
        """
        Answer no more; what was brought stays.
        """
        self._answers.close()
        self._volume = None

    def note_outage(self, error: SidecarError) -> None:
        """
        Note that the remote fails: its backoff decides when it is asked again.
        """
        self._answers.note_outage(error)

    def bring(self, fence: Fence) -> None:
        """
        Bring what is waited for, as much as a cycle has time for; a failure is the answer to
        whoever waits.

        git-sync's checkout is that of the shown commit again at the end, which is repaired from it.

        Raises:
            CycleAbandoned: The fence was revoked.
        """
        volume = self._volume
        if volume is None:
            return
        self._answers.note_outage(None)
        context, shown = self._context, volume.published().commit
        history = History(context, volume)
        is_moved = False
        for commit in self._answers.due(fence) if shown else ():
            with self._answers.answering(commit):
                if not volume.has(commit):
                    history.require(commit, shown, fence)
                    is_moved = True
                    self._bring(commit, volume, fence)
        if is_moved:
            with suppress(SidecarError):
                check_out(context.engine, shown, fence)
        context.metrics.asked.kept.set(volume.asked_count)

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
            check_out(engine, commit, fence)
            volume.keep_asked(commit, engine.worktree(), fence)
        except SidecarError as error:
            if error.reason == "target_full":
                throw_away(engine.root)
            raise
        log.info("revision_brought", revision=commit, seconds=round(time.monotonic() - started, 3))
