"""
In place, behind a gate: what was accepted is shown file by file.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import ExitStack

from s3_sync.layouts.leftovers import clear_snapshots
from s3_sync.layouts.publish import bring, difference, repair, restore
from s3_sync.plan import Plan
from s3_sync.result import CycleResult
from s3_sync.settings import Settings
from s3_sync.tree.managed import Managed
from s3_sync.tree.target import Target, Torn
from s3_sync.tree.volume import PUBLISHING, STAGED, Volume, is_there
from sidecar_runtime.fence import Fence
from sidecar_runtime.volume.files import is_at


class StagedLayout:
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

    def repair(self, damaged: Collection[str], fence: Fence) -> CycleResult:
        result = repair(self.tree, self.shown, damaged, fence)
        if self._is_half_shown:
            result.add(self._show(fence))
        return result

    def publish(self, revision: str, fence: Fence) -> CycleResult:
        self._volume.write_state(PUBLISHING, f"{revision}\n".encode(), fence)
        self._is_half_shown = True
        return self._show(fence)

    def _show(self, fence: Fence) -> CycleResult:
        """
        Show all of the tree; where that fails, or the process is killed, the next cycle goes on.
        """
        plan = self.changes()
        # All of it is looked at before the first is shown: a gate's command may have meddled.
        for path in self.tree.damaged(path for path, _ in plan.publish):
            raise Torn(path)
        result = bring(self.tree, self.shown, plan, fence)
        if not result.failed:
            with fence:
                os.unlink(PUBLISHING, dir_fd=self._volume.state)
            self._is_half_shown = False
        return result

    def prune(self, fence: Fence) -> None:
        pass

    def clear_others(self, fence: Fence) -> None:
        with fence:
            clear_snapshots(self._volume)

    def close(self) -> None:
        self._open.close()
