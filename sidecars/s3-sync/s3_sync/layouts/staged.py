"""
The in-place layout behind a gate: an accepted revision is published file by file.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import ExitStack

from s3_sync.layouts.leftovers import clear_snapshots
from s3_sync.layouts.publish import bring, difference, repair, restore
from s3_sync.plan import Plan
from s3_sync.result import CycleResult
from s3_sync.settings import Settings
from s3_sync.tree.published import partial_name
from s3_sync.tree.target import Target, Torn
from s3_sync.tree.volume import STAGED, Volume
from sidecar_runtime.fence import Fence
from sidecar_runtime.volume.files import is_at


class StagedLayout:
    """
    Publishes in place, behind a gate: renames the files of a revision into place one by one.
    """

    is_atomic = True
    revision = ""

    def __init__(self, settings: Settings, volume: Volume) -> None:
        self._volume = volume
        self._delete = settings.delete
        with ExitStack() as stack:
            self.tree = Target(volume, file_mode=settings.file_mode, part=STAGED)
            stack.callback(self.tree.close)
            self.shown = Target(volume, file_mode=settings.file_mode)
            stack.callback(self.shown.close)
            self._open = stack.pop_all()
        # The name of the accepted files, from before the first one is published until they are
        # recorded; else empty.
        self._publishing = volume.half_shown()
        self._is_half_shown = bool(self._publishing)
        if not self.tree.managed.files:
            restore(self.shown.managed.files, self.shown, self.tree, Fence())

    @property
    def problem(self) -> str:
        return "only some files of a revision are in place" if self._is_half_shown else ""

    @property
    def unrecorded(self) -> str:
        return "" if self._is_half_shown else self._publishing

    def is_current(self) -> bool:
        return is_at(STAGED, self._volume.state, self.tree.folder)

    def shows(self, revision: str) -> bool:
        return not self._is_half_shown and self.changes().is_empty

    def begin(self, revision: str, fence: Fence) -> None:
        pass

    def changes(self) -> Plan:
        plan = difference(self.tree, self.shown, may_delete=self._delete != "none")
        if self._delete != "all":
            return plan
        foreign = [path for path in self.shown.foreign() if path not in self.tree.managed.files]
        return Plan(plan.publish, (*plan.delete, *foreign))

    def repair(self, damaged: Collection[str], fence: Fence) -> CycleResult:
        result = repair(self.tree, self.shown, damaged, fence)
        # A tree that has changed since was not accepted; a damaged one is downloaded first.
        is_same = self._publishing == partial_name(self.tree.managed.files)
        if self._is_half_shown and is_same and not self._torn():
            result.add(self._show(fence))
        return result

    def publish(self, revision: str, fence: Fence) -> CycleResult:
        for path in self._torn():  # the gate's command may have changed files
            raise Torn(path)
        name = partial_name(self.tree.managed.files)
        self._volume.begin_showing(name, fence)
        self._publishing, self._is_half_shown = name, True
        return self._show(fence)

    def _torn(self) -> set[str]:
        """
        Inspect all files to publish before the first one becomes visible.
        """
        return self.tree.damaged(iter(self.changes().publish))

    def _show(self, fence: Fence) -> CycleResult:
        """
        Publish all files of the tree; after a failure or a kill, the next cycle continues.
        """
        result = bring(self.tree, self.shown, self.changes(), fence)
        self._is_half_shown = bool(result.failed)
        return result

    def prune(self, fence: Fence) -> None:
        pass

    def finish(self, fence: Fence) -> bool:
        if self.unrecorded:
            self._volume.end_showing(fence)
            self._publishing = ""
        with fence:
            clear_snapshots(self._volume)
        return True

    def close(self) -> None:
        self._open.close()
