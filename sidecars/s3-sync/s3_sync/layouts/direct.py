"""
The in-place layout without a gate: each file is visible at once.
"""

from __future__ import annotations

from collections.abc import Collection

from s3_sync.layouts.leftovers import clear_snapshots, clear_tree
from s3_sync.plan import Plan
from s3_sync.result import CycleResult
from s3_sync.settings import Settings
from s3_sync.tree.target import Target
from s3_sync.tree.volume import STAGED, Volume
from sidecar_runtime.fence import Fence


class Direct:
    """
    Publishes in place, without a gate: each file is visible at once.
    """

    is_atomic = False
    revision = unrecorded = ""

    def __init__(self, settings: Settings, volume: Volume) -> None:
        self._volume = volume
        self.tree = self.shown = Target(volume, file_mode=settings.file_mode)
        self._is_half_shown = bool(volume.half_shown())

    @property
    def problem(self) -> str:
        return "only some files of a release are in place" if self._is_half_shown else ""

    def is_current(self) -> bool:
        return True

    def shows(self, revision: str) -> bool:
        return True

    def begin(self, revision: str, fence: Fence) -> None:
        self._volume.begin_showing(revision, fence)
        self._is_half_shown = True

    def changes(self) -> Plan:
        return Plan((), ())

    def repair(self, damaged: Collection[str], fence: Fence) -> CycleResult:
        return CycleResult()

    def publish(self, revision: str, fence: Fence) -> CycleResult:
        return CycleResult()

    def prune(self, fence: Fence) -> None:
        pass

    def finish(self, fence: Fence) -> bool:
        if self._is_half_shown:
            self._volume.end_showing(fence)
            self._is_half_shown = False
        with fence:
            clear_tree(STAGED, self._volume)
            clear_snapshots(self._volume)
        return True

    def close(self) -> None:
        self.tree.close()
