"""
In place, behind a gate: what was accepted is shown file by file.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import ExitStack

from s3_sync.layouts.bring import bring, difference, mend, restore
from s3_sync.layouts.leftovers import clear_snapshots
from s3_sync.plan import Plan
from s3_sync.settings import Settings
from s3_sync.target.managed import Managed
from s3_sync.target.target import Target, Torn
from s3_sync.target.volume import PUBLISHING, STAGED, Volume, is_at, is_there
from s3_sync.work import Work
from sidecar_runtime.fence import Fence


class Staged:
    """
    In place, behind a gate: the files of a revision follow one another, each by rename.
    """

    is_atomic = True
    revision = problem = ""

    def __init__(self, settings: Settings, volume: Volume) -> None:
        self._volume = volume
        self._delete = settings.delete
        with ExitStack() as stack:
            self.tree = Target(volume, file_mode=settings.file_mode, part=STAGED)
            stack.callback(self.tree.close)
            self.shown = Target(volume, file_mode=settings.file_mode)
            stack.callback(self.shown.close)
            self._open = stack.pop_all()
        # An accepted revision of which a part is shown: nothing else is done before the rest is.
        self._is_half_shown = is_there(PUBLISHING, volume.state)
        if not self.tree.managed.files:
            restore(self.shown.managed.files, self.shown, self.tree, Fence())

    def is_current(self) -> bool:
        return is_at(STAGED, self._volume.state, self.tree.folder)

    def shows(self, revision: str) -> bool:
        return self.changes().is_empty

    def changes(self) -> Plan[Managed]:
        plan = difference(self.tree, self.shown, may_delete=self._delete != "none")
        if self._delete != "all":
            return plan
        foreign = [path for path in self.shown.foreign() if path not in self.tree.managed.files]
        return Plan(plan.publish, (*plan.delete, *foreign))

    def mend(self, damaged: Collection[str], fence: Fence) -> Work:
        work = mend(self.tree, self.shown, damaged, fence)
        if self._is_half_shown:
            work.add(self._show(fence))
        return work

    def publish(self, revision: str, fence: Fence) -> Work:
        self._volume.write_state(PUBLISHING, f"{revision}\n".encode(), fence)
        self._is_half_shown = True
        return self._show(fence)

    def _show(self, fence: Fence) -> Work:
        """
        Show all of the tree; where that fails, or the process is killed, the next cycle goes on.
        """
        plan = self.changes()
        # All of it is looked at before the first is shown: a gate's command may have meddled.
        for path in self.tree.damaged(path for path, _ in plan.publish):
            raise Torn(path)
        work = bring(self.tree, self.shown, plan, fence)
        if not work.failed:
            with fence:
                os.unlink(PUBLISHING, dir_fd=self._volume.state)
            self._is_half_shown = False
        return work

    def prune(self, fence: Fence) -> None:
        pass

    def clear_others(self, fence: Fence) -> None:
        with fence:
            clear_snapshots(self._volume)

    def close(self) -> None:
        self._open.close()
