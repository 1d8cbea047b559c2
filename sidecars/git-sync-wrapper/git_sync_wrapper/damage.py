"""
Damage to the published files: found by comparing them with their list, and repaired by a new
snapshot of the same commit.

Whoever can write to the volume may damage them, and so may a node that loses power. git-sync's
repository on the volume usually has all that a repair needs, even if the remote is down.
"""

from __future__ import annotations

import time

from git_sync_wrapper.publish import Volume
from git_sync_wrapper.record import NAMED_PATHS, Published
from git_sync_wrapper.sidecar import Parts
from sidecar_runtime.errors import SidecarError, counted
from sidecar_runtime.fence import Fence
from sidecar_runtime.logs import get_logger

# Inspects at every thirtieth poll, but at least this often.
POLLS = 30
SECONDS = 300.0

log = get_logger("inspection")


class Inspection:
    """
    Inspects when that is due, and after that while anything is damaged.

    Attributes:
        problem: What is damaged; empty if nothing is.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._due_at = 0.0
        self._was_holder = False
        self.problem = ""

    def look(
        self, volume: Volume, commit: str, *, is_holder: bool = True, is_asked_for: bool = False
    ) -> None:
        """
        Inspect the published commit, if that is due.

        Args:
            is_holder: Whether this process has the lock. A standby leaves a list that is missing to
                the holder, which may be writing it.
            is_asked_for: Whether it is due in any case.
        """
        is_early = time.monotonic() < self._due_at and is_holder == self._was_holder
        if not commit or (is_early and not is_asked_for and not self.problem):
            return
        seconds = min(SECONDS, POLLS * self._parts.settings.interval_seconds)
        self._due_at, self._was_holder = time.monotonic() + seconds, is_holder
        damaged = volume.damage(commit, is_fresh=not is_holder)
        before, self.problem = self.problem, ""
        if damaged:
            files = counted(len(damaged), "file")
            self.problem = f"damaged or missing in {commit}: {files}, such as {damaged[0]}"
            if not before:
                paths = damaged[:NAMED_PATHS]
                log.warning("damage_found", revision=commit, files=len(damaged), paths=paths)
        elif damaged is None and is_holder:
            self.problem = f"{commit} cannot be checked: the list of its files is missing"

    def repair(self, volume: Volume, published: Published, fence: Fence) -> None:
        """
        Replace the published commit's damaged snapshot by one from git-sync's repository here,
        without the remote.
        """
        options, commit, engine = self._parts.options, published.commit, self._parts.engine
        is_other = published.shortfall(options) and not published.fallback
        if not self.problem or is_other or published.problem(options):
            return
        if not (checkout := engine.restore(commit, self._parts.logins, fence)):
            return
        try:
            build = volume.build(commit, checkout, fence)
            volume.show(build, published.facts, fence, fallback=published.fallback)
            engine.clear()
        except (SidecarError, OSError) as error:  # the cycle goes on: a newer commit may be whole
            log.warning("restore_failed", revision=commit, error=str(error))
            return
        if published.refused:
            volume.refuse(published.refused, fence)
        paths = build.changed[:NAMED_PATHS]
        log.warning("damage_repaired", revision=commit, files=len(build.changed), paths=paths)
        self.problem = ""
