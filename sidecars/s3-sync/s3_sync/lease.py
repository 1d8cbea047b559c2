"""
The target while this process holds its lock: layout, record of the published state, damage.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress

from s3_sync.layouts.layout import Layout
from s3_sync.layouts.open import open_layout
from s3_sync.layouts.publish import restore
from s3_sync.metrics import SyncMetrics
from s3_sync.outside import Outside
from s3_sync.result import Changes, CycleResult
from s3_sync.settings import Settings
from s3_sync.status import Status
from s3_sync.tree.damage import Scan
from s3_sync.tree.published import Published
from s3_sync.tree.volume import Volume, open_folders
from sidecar_runtime.fence import Fence
from sidecar_runtime.health import Readiness
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.lock import TargetLock, read_holder

LOCK = "lock"
# Inspecting every file costs more than polling S3, so it is spread over cycles. By source: the
# minimum number of files in a cycle, and the maximum number of cycles for all files.
SCANS = {"listing": (500, 10), "release": (100, 30)}
NAMED_FILES = 50

log = get_logger("target")


class Lease:
    """
    The target of one thread; the lock and the status belong to the process.

    Attributes:
        published: The record of the last complete cycle.
        damaged: Published files that differ from what was published.
        torn: The damaged files of the layout's tree, if it is separate from the published files.
    """

    def __init__(
        self, settings: Settings, metrics: SyncMetrics, lock: TargetLock, status: Status
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._lock = lock
        self._status = status
        self._volume: Volume | None = None
        self._layout: Layout | None = None
        self._scan = Scan(*SCANS[settings.source_kind])
        self._holder: Mapping[str, object] = {}
        self.published = Published(
            settings.source,
            settings.layout,
            settings.source_kind,
            settings.revision or "",
            is_signed=settings.trusted_keys is not None,
            filters=(settings.include, settings.exclude),
        )
        self._outside = Outside(settings, self.published, Scan(*SCANS[settings.source_kind]))
        self.damaged: set[str] = set()
        self.torn: set[str] = set()

    @property
    def holder(self) -> str:
        """
        The process that holds the lock instead of this one, in words.
        """
        return _named(self._holder)

    def acquire(self) -> Layout | None:
        """
        Return the layout of the target; None while another process holds the lock.

        Raises:
            OSError: The target cannot be opened or written; its published files still count.
        """
        try:
            return self._acquire()
        except OSError:
            self._status.readiness = self._outside.look()
            raise

    def close(self) -> None:
        """
        Close all open folders and files; the process keeps the lock.
        """
        if self._layout is not None:
            self._layout.close()
        if self._volume is not None:
            self._volume.close()
        self._layout = self._volume = None
        self.damaged = set()
        self.torn = set()

    def look(self, layout: Layout) -> None:
        """
        Inspect the next slice of the published files.
        """
        if layout.shown is None:
            return
        files = layout.shown.managed.files
        found = layout.shown.damaged(iter(self._scan.next_slice(files)))
        if not found <= self.damaged:  # new damage rarely hits a single file: inspect all
            found = layout.shown.damaged(iter(files))
        self.damaged |= found

    def look_at_all(self, layout: Layout) -> None:
        """
        Inspect all published files and all files of the tree.
        """
        self.torn = layout.tree.damaged(iter(layout.tree.managed.files))
        if layout.shown is not None:
            self.damaged = layout.shown.damaged(iter(layout.shown.managed.files))

    def repair(self, layout: Layout, fence: Fence) -> CycleResult:
        """
        Undo changes by other processes to the published files, if that needs no download.
        """
        if not layout.is_atomic:
            return CycleResult()
        self.torn |= layout.tree.damaged(iter(self.damaged))
        if self.torn and layout.shown is not None:
            restore(self.torn - self.damaged, layout.shown, layout.tree, fence)
            self.torn = layout.tree.damaged(iter(self.torn))
        result = layout.repair(self.damaged - self.torn, fence)
        is_complete = bool(layout.unrecorded)
        if is_complete:
            self._settle(layout, fence)
        self._metrics.healed.inc(result.healed)
        self.look_again(layout)
        if is_complete:  # the rest of the cycle may take minutes
            self.show(layout)
        return result

    def look_again(self, layout: Layout) -> None:
        """
        Inspect the damaged files again and forget those that are repaired.
        """
        self.damaged = layout.shown.damaged(iter(self.damaged)) if layout.shown else set()
        self.torn = layout.tree.damaged(iter(self.torn))

    def record(
        self,
        layout: Layout,
        fence: Fence,
        changes: Changes,
        *,
        name: str,
        aim: str,
        missing: int = 0,
        fallback: str = "",
    ) -> None:
        """
        Record the published state; see :meth:`Published.record`.
        """
        assert self._volume is not None and layout.shown is not None
        self.published.record(
            self._volume,
            fence,
            changes.counts(),
            name=name,
            aim=aim,
            files=len(layout.shown.managed.files),
            missing=missing,
            fallback=fallback,
            mark=layout.unrecorded,
        )

    def show(self, layout: Layout) -> None:
        """
        Show readiness, metrics and status of the published files on the endpoint.
        """
        shown = layout.shown.managed.files if layout.shown else {}
        if layout.shown is None:
            self._status.readiness = Readiness(False, problem="nothing is published yet")
        else:
            self._status.readiness = self.published.readiness(self.damaged, layout.problem)
        unverified = layout.shown.managed.unverified if layout.shown else ()
        self._measure(len(shown), len(unverified))
        self._status.show(
            waiting_for=[],
            managed_files=len(shown),
            damaged_files=_some(self.damaged),
            unverified_files=_some(unverified),
        )

    def _settle(self, layout: Layout, fence: Fence) -> None:
        """
        Record a publish that has ended without its record. While the volume is full, each cycle
        tries again: it may delete files.
        """
        assert self._volume is not None and layout.shown is not None
        name, files = layout.unrecorded, len(layout.shown.managed.files)
        with suppress(OSError):
            self.published.settle(self._volume, fence, Changes().counts(), name=name, files=files)
            self._volume.end_showing(fence)

    def _measure(self, files: int, unverified: int) -> None:
        """
        Set the metrics of the published state.
        """
        self._metrics.managed.set(files)
        self._metrics.unverified.set(unverified)
        self._metrics.partial.set(self.published.missing > 0)
        self._metrics.gate.fallback.set(bool(self.published.fallback))
        self._metrics.last_publish.set(self.published.at or 0)

    def _acquire(self) -> Layout | None:
        if not self._is_current():
            self.close()
        root, state = open_folders(self._settings.dest_path)
        try:
            is_ours = self._lock.try_acquire(LOCK, state)
            holder = {} if is_ours else read_holder(LOCK, state)
        finally:
            os.close(state)
            os.close(root)
        if not is_ours:
            self.close()
            self._stand_by(holder)
            return None
        self._holder = {}
        if self._layout is None:
            self._volume = Volume(self._settings.dest_path, fsync=self._settings.fsync)
            self._layout = self._take_over(self._volume)
        return self._layout

    def _is_current(self) -> bool:
        """
        Whether all open folders are still at their paths.
        """
        if self._volume is None or self._layout is None:
            return False
        return self._volume.is_current() and self._layout.is_current()

    def _take_over(self, volume: Volume) -> Layout:
        """
        Open the layout and inspect everything that a previous process left.
        """
        self.published.read(volume.state)
        layout = open_layout(self._settings, volume, self.published.name)
        if layout.shown is not None and layout.shown.managed.is_lost and self.published.at:
            # The list of published files is lost: only the source can tell what should be there.
            log.warning("published_unknown", name=self.published.name)
            self.published.void(volume)
        elif layout.revision:
            self.published.correct(layout.revision)
        shown = layout.shown.managed.files if layout.shown else {}
        if not layout.problem:  # otherwise the files belong to another revision, or are incomplete
            self.published.count(len(shown))
        self._scan.start_over()
        if layout.shown is not None:
            layout.shown.take_back_modes()
        self.damaged = layout.shown.damaged(iter(shown)) if layout.shown else set()
        if layout.is_atomic and layout.shown and self._settings.delete == "none":
            # Published files whose key is gone exist nowhere else.
            lost = shown.keys() - layout.tree.managed.files.keys()
            restore(lost, layout.shown, layout.tree, Fence())
        if layout.is_atomic:
            self.torn = layout.tree.damaged(iter(layout.tree.managed.files))
        log.info("target_acquired", managed_files=len(shown))
        # Files that a previous process published are ready before S3 answers.
        self.show(layout)
        return layout

    def _stand_by(self, holder: Mapping[str, object]) -> None:
        """
        Wait for the lock holder; ready while its files are intact and match the settings here.
        """
        self._status.readiness = self._outside.look()
        problem = ""
        if self.published.is_of_others:
            problem = "it publishes a different source, layout or revision than is set here"
            self._status.readiness = Readiness(
                False, problem=f"{_named(holder)} holds the lock: {problem}"
            )
        if holder != self._holder:
            self._holder = holder
            say = log.warning if problem else log.info
            say("target_waiting", holder=self.holder, **({"problem": problem} if problem else {}))
        # All other details and metrics would be those of the time when this process had the lock.
        files = self.published.files
        self._measure(files, unverified=0)
        self._status.details = {"waiting_for": self.holder, "managed_files": files}


def _named(holder: Mapping[str, object]) -> str:
    return f"pid {holder.get('pid')} on {holder.get('host')}"


def _some(paths: Iterable[str]) -> list[str]:
    """
    Return up to NAMED_FILES paths, sorted; sorting all would cost more than the poll.
    """
    return sorted(itertools.islice(paths, NAMED_FILES))
