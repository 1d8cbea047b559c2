"""
The target of one thread: its lock, its layout, and what is published there.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from s3_sync.digest import Content
from s3_sync.folder.in_place import InPlace
from s3_sync.folder.layout import Layout
from s3_sync.folder.paths import open_own_folder, open_target, opened
from s3_sync.folder.record import NAME, UNFINISHED, Published, Record, readiness_of
from s3_sync.folder.snapshots import SnapshotLayout
from s3_sync.folder.volume import Volume
from s3_sync.keys import RESERVED
from s3_sync.metrics import SyncMetrics
from s3_sync.settings import Settings
from s3_sync.status import Status
from sidecar_runtime.fence import Fence
from sidecar_runtime.health import Readiness
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.lock import TargetLock, read_holder

LOCK = "lock"
# Inspecting every file costs more than polling S3, so it is spread over cycles. By source: the
# minimum number of files in a cycle, and the maximum number of cycles for all files.
SCANS = {"listing": (500, 10), "release": (100, 6)}
NAMED_FILES = 50

log = get_logger("target")


class Target:
    """
    The target while this process may hold its lock; the lock and the status belong to the process.

    Attributes:
        layout: None while another process holds the lock.
        published: What the record says, or would say if the volume took it; None if nothing of
            this source is published.
        damaged: Files of what is shown that are not as they were published.
        is_written: Whether the record on disk is the one that this process knows.
        recorded: The files at the last record of this process.
        holder: The process that holds the lock instead, in words.
    """

    def __init__(
        self, settings: Settings, metrics: SyncMetrics, lock: TargetLock, status: Status
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._lock = lock
        self._status = status
        self._record = Record(settings)
        self._volume: Volume | None = None
        self.layout: Layout | None = None
        self.published: Published | None = None
        self.damaged: set[str] = set()
        self.is_written = True
        self.recorded: Mapping[str, Content] = {}
        self._scan: Iterator[str] = iter(())
        self.holder = ""

    def acquire(self) -> bool:
        """
        Take the lock and open the layout; False while another process holds the lock.

        Raises:
            OSError: The target cannot be opened or written; what is published still counts.
        """
        try:
            return self._acquire()
        except OSError:
            self._status.readiness = self._look_from_outside()
            raise

    def close(self) -> None:
        """
        Close all open folders and files; the process keeps the lock.
        """
        if self.layout is not None:
            self.layout.close()
        if self._volume is not None:
            self._volume.close()
        self.layout = self._volume = None
        self.damaged = set()

    def inspect(self) -> set[str]:
        """
        Inspect the next part of what is shown; all of it if that finds new damage, which rarely
        hits a single file. Return the damaged files that are new.
        """
        shown = self.layout.shown if self.layout is not None else None
        if shown is None:
            return set()
        least, cycles = SCANS[self._settings.source_kind]
        count = max(least, -(-len(shown.files) // cycles))
        part = list(itertools.islice(self._scan, count))
        if len(part) < count:
            self._scan = iter(list(shown.files))
            part += itertools.islice(self._scan, count - len(part))
        found = shown.damaged(part)
        if not found <= self.damaged:
            found = shown.damaged(shown.files)
        new, self.damaged = found - self.damaged, self.damaged | found
        return new

    def look_again(self) -> set[str]:
        """
        Forget damaged files that were repaired, and return them.
        """
        shown = self.layout.shown if self.layout is not None else None
        before = self.damaged.intersection(shown.files) if shown is not None else set()
        self.damaged = shown.damaged(before) if shown is not None else set()
        return before - self.damaged

    def record(self, published: Published, changes: Mapping[str, int], fence: Fence) -> None:
        """
        Record what is published.

        Raises:
            OSError: It was not written. This process knows it all the same.
        """
        assert self._volume is not None
        self.published, self.is_written = published, False
        self._record.write(self._volume, fence, published, changes)
        self.is_written = True
        shown = self.layout.shown if self.layout is not None else None
        if published.name != UNFINISHED and shown is not None:
            self.recorded = dict(shown.files)

    def void(self) -> None:
        """
        Discard the record: it is unknown which files on disk belong to it.
        """
        assert self._volume is not None
        self.published = None
        with suppress(FileNotFoundError):
            os.unlink(NAME, dir_fd=self._volume.state)

    def begin_first(self, fence: Fence) -> None:
        """
        Discard the record of another source whose files are replaced one by one from now on.
        """
        if self._record.is_of_others and self._record.is_of_layout:
            with fence:
                self.void()

    @property
    def is_good(self) -> bool:
        """
        Whether what is published may stay: damage that is left now needs another state.
        """
        problem = self.layout is not None and self.layout.problem
        return self.published is not None and not (self.lost or problem)

    @property
    def fold(self) -> Callable[[str], str] | None:
        """
        What the file system takes names for; None if it distinguishes all of them.
        """
        return self._volume.fold if self._volume is not None else None

    @property
    def lost(self) -> int:
        """
        How many published files are known to be missing or altered; a lost list may have dropped
        some of them.
        """
        shown = self.layout.shown if self.layout is not None else None
        if shown is None or self.published is None:
            return 0
        return len(self.damaged) + max(0, self.published.files - len(shown.files))

    def show(self) -> None:
        """
        Show readiness, metrics and status of what is published.
        """
        layout = self.layout
        shown = layout.shown if layout is not None else None
        if layout is None or shown is None:
            self._status.readiness = Readiness(False, problem="nothing is published yet")
        else:
            self._status.readiness = readiness_of(self.published, self.lost, layout.problem)
        files = shown.files if shown is not None else {}
        unverified = shown.unverified if shown is not None else []
        self._measure(len(files), len(unverified))
        self._status.show(
            waiting_for=[],
            managed_files=len(files),
            damaged_files=_some(self.damaged),
            unverified_files=_some(unverified),
        )

    # --- inside

    def _acquire(self) -> bool:
        if self._volume is None or self.layout is None or not self._is_current():
            self.close()
        root = open_target(self._settings.dest_path)
        try:
            state = open_own_folder(RESERVED, root)
            try:
                is_ours = self._lock.try_acquire(LOCK, state)
                holder = {} if is_ours else read_holder(LOCK, state)
            finally:
                os.close(state)
        finally:
            os.close(root)
        if not is_ours:
            self.close()
            self._stand_by(holder)
            return False
        self.holder = ""
        if self.layout is None:
            self._take_over()
        return True

    def _is_current(self) -> bool:
        assert self._volume is not None and self.layout is not None
        return self._volume.is_current() and self.layout.is_current()

    def _take_over(self) -> None:
        """
        Open the layout, and inspect everything that a previous process left. Files that it
        published are ready before S3 answers.
        """
        settings = self._settings
        is_snapshot = settings.layout == "snapshot"
        # Hard links share their content: an edit in one snapshot would change all of them.
        mode = 0o644 if settings.source_kind == "release" else settings.file_mode
        mode &= ~0o222 if is_snapshot else ~0
        self._volume = volume = Volume(settings.dest_path, file_mode=mode, fsync=settings.fsync)
        self.published, self.is_written = self._record.read(volume.state), True
        self.recorded = {}
        if is_snapshot:
            name = self.published.name if self.published is not None else ""
            self.layout = SnapshotLayout(settings, volume, name)
        else:
            self.layout = InPlace(volume)
        shown = self.layout.shown
        if shown is not None:
            if self.layout.is_lost and self.published is not None:
                log.warning("published_unknown", name=self.published.name)
                self.void()
            elif self.layout.name:
                self.published = self._record.of_link(self.layout.name, self.published)
            shown.take_back_modes()
            self.recorded = dict(shown.files)
            self.damaged = shown.damaged(shown.files)
        if isinstance(self.layout, SnapshotLayout):
            self.layout.drop_damaged(Fence())
        self._scan = iter(())
        log.info("target_acquired", managed_files=len(shown.files) if shown is not None else 0)
        self.show()

    def _stand_by(self, holder: Mapping[str, Any]) -> None:
        """
        Wait for the lock holder; ready while what it has published fits the settings here.
        """
        said = f"pid {holder.get('pid')} on {holder.get('host')}"
        readiness, problem = self._look_from_outside(), ""
        if self._record.is_of_others:
            problem = "it publishes a different source, layout or revision than is set here"
            readiness = Readiness(False, problem=f"{said} holds the lock: {problem}")
        self._status.readiness = readiness
        if said != self.holder:
            self.holder = said
            say = log.warning if problem else log.info
            say("target_waiting", holder=said, **({"problem": problem} if problem else {}))
        # All other details and metrics would be those of the time when this process had the lock.
        files = self.published.files if self.published is not None else 0
        self._measure(files, unverified=0)
        self._status.details = {"waiting_for": said, "managed_files": files}

    def _look_from_outside(self) -> Readiness:
        """
        Return readiness as the record says it, without the lock.
        """
        path = self._settings.dest_path
        try:
            with opened(path) as root, opened(RESERVED, root) as state:
                self.published = self._record.read(state)
        except OSError as error:
            self.published = None
            return Readiness(False, problem=f"{path} cannot be read: {error.strerror}")
        return readiness_of(self.published, 0)

    def _measure(self, files: int, unverified: int) -> None:
        published = self.published
        self._metrics.managed.set(files)
        self._metrics.unverified.set(unverified)
        self._metrics.partial.set(published is not None and published.missing > 0)
        self._metrics.gate.fallback.set(published is not None and bool(published.fallback))
        self._metrics.last_publish.set(published.published_at if published is not None else 0)


def _some(paths: Iterable[str]) -> list[str]:
    """
    Return up to NAMED_FILES paths, sorted; sorting all would cost more than the poll.
    """
    return sorted(itertools.islice(paths, NAMED_FILES))
