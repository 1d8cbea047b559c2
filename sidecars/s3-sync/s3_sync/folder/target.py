"""
The target of one thread: its lock, what it shows, what is damaged there, and the record of it.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from s3_sync.digest import Content
from s3_sync.folder.folder import Folder
from s3_sync.folder.paths import open_own_folder, open_target, opened
from s3_sync.folder.record import UNFINISHED, Published, Record, readiness_of
from s3_sync.folder.snapshots import SnapshotLayout
from s3_sync.folder.volume import Volume
from s3_sync.keys import RESERVED
from s3_sync.metrics import Status
from s3_sync.settings import Settings
from sidecar_runtime.fence import Fence
from sidecar_runtime.health import Readiness
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.files import TargetLock, read_holder

LOCK = "lock"
# Inspecting every file costs more than polling S3, so it is spread over cycles. By source: the
# minimum number of files in a cycle, and the maximum number of cycles for all files.
SCANS = {"listing": (500, 10), "release": (100, 6)}
NAMED_FILES = 50

log = get_logger("target")


class Damage:
    """
    Inspects what is shown, a part in each cycle.

    Attributes:
        files: Files of what is shown that are not as they were published.
        recorded: What was shown at the last record of this process.
    """

    def __init__(self) -> None:
        self.files: set[str] = set()
        self.recorded: Mapping[str, Content] = {}
        self._scan: Iterator[str] = iter(())

    def begin(self, shown: Folder | None) -> None:
        """
        Inspect everything that a previous process left.
        """
        self._scan = iter(())
        self.recorded = dict(shown.files) if shown is not None else {}
        self.files = shown.damaged(shown.files) if shown is not None else set()

    def inspect(self, shown: Folder, least: int, cycles: int) -> bool:
        """
        Inspect the next part of what is shown; all of it if that finds new damage, which rarely
        hits a single file. Return whether there is new damage.

        Args:
            least: The minimum number of files.
            cycles: In how many parts all files are inspected at most.
        """
        count = max(least, -(-len(shown.files) // cycles))
        part = list(itertools.islice(self._scan, count))
        if len(part) < count:
            self._scan = iter(list(shown.files))
            part += itertools.islice(self._scan, count - len(part))
        before = self.files
        found = shown.damaged(part)
        if not found <= before:
            found = shown.damaged(shown.files)
        self.files = before | found
        return self.files != before

    def look_again(self, shown: Folder) -> set[str]:
        """
        Forget damaged files that were repaired, and return them.
        """
        before = self.files & shown.files.keys()
        self.files = shown.damaged(before)
        return before - self.files


class Target:
    """
    The target while this process may hold its lock; the lock and the status belong to the process.

    Attributes:
        volume: The open target; None while another process holds the lock.
        snapshots: The snapshot layout; None in place.
        holder: The process that holds the lock instead, in words.
    """

    def __init__(self, settings: Settings, lock: TargetLock, status: Status) -> None:
        self._settings = settings
        self._lock = lock
        self._status = status
        self.record = Record(settings)
        self.damage = Damage()
        self.volume: Volume | None = None
        self.snapshots: SnapshotLayout | None = None
        self._in_place: Folder | None = None
        self.holder = ""

    def acquire(self) -> bool:
        """
        Take the lock and open the target; False while another process holds the lock.

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
        for part in (self._in_place, self.snapshots, self.volume):
            if part is not None:
                part.close()
        self._in_place = self.snapshots = self.volume = None
        self.damage = Damage()

    @property
    def shown(self) -> Folder | None:
        """
        What consumers see; None before the first publish of a snapshot.
        """
        return self.snapshots.shown if self.snapshots is not None else self._in_place

    @property
    def published(self) -> Published | None:
        """
        What the record says; None if nothing of this source is published.
        """
        return self.record.published

    def inspect(self, fence: Fence) -> None:
        """
        Inspect a part of what is shown, and undo what needs no source.
        """
        shown = self.shown
        if shown is None:
            return
        has_more = self.damage.inspect(shown, *SCANS[self._settings.source_kind])
        if self.snapshots is not None:
            self.snapshots.tidy(fence, is_damaged=has_more)
        if has_more:  # a cycle may take minutes
            self.show()

    def begin(self) -> Folder:
        """
        Return the folder to bring up to date with a state: what is shown if its files are replaced
        one by one, else one that nobody reads yet.
        """
        if self.snapshots is not None:
            return self.snapshots.begin()
        assert self._in_place is not None
        return self._in_place

    def drop(self) -> None:
        """
        Remove a folder that was begun and will not be shown.
        """
        if self.snapshots is not None:
            self.snapshots.drop()

    def write(self, published: Published, changes: Mapping[str, int], fence: Fence) -> None:
        """
        Record what is published.

        Raises:
            OSError: It was not written. This process knows it all the same.
        """
        assert self.volume is not None
        self.record.write(self.volume, fence, published, changes)
        if published.name != UNFINISHED and self.shown is not None:
            self.damage.recorded = dict(self.shown.files)

    def begin_first(self, fence: Fence) -> None:
        """
        Discard the record of another source whose files are replaced one by one from now on.
        """
        if self.record.is_of_others and self.record.is_of_layout and self.volume is not None:
            with fence:
                self.record.void(self.volume.state)

    def finish(self, fence: Fence) -> None:
        """
        Remove snapshots that need not be kept, and what another layout left on this volume, now
        that what is shown is recorded.
        """
        assert self.volume is not None
        if self.snapshots is None:
            self.volume.remove_snapshots(fence)
            return
        self.snapshots.prune(fence)
        if self._settings.delete != "none":
            self.volume.remove_in_place(fence)

    @property
    def fold(self) -> Callable[[str], str] | None:
        """
        What the file system takes names for; None if it distinguishes all of them.
        """
        return self.volume.fold if self.volume is not None else None

    @property
    def is_good(self) -> bool:
        """
        Whether what is published may stay: damage that is left now needs another state.
        """
        return self.published is not None and not (self.lost or self._problem)

    @property
    def lost(self) -> int:
        """
        How many published files are known to be missing or altered; a lost list may have dropped
        some of them.
        """
        shown, published = self.shown, self.published
        if shown is None or published is None:
            return 0
        return len(self.damage.files) + max(0, published.files - len(shown.files))

    def show(self) -> None:
        """
        Show readiness, metrics and status of what is published.
        """
        shown = self.shown
        if shown is None:
            self._status.readiness = Readiness(False, problem="nothing is published yet")
        else:
            self._status.readiness = readiness_of(self.published, self.lost, self._problem)
        files = shown.files if shown is not None else {}
        unverified = shown.unverified if shown is not None else []
        self._measure(len(files), len(unverified))
        self._status.show(
            waiting_for=[],
            managed_files=len(files),
            damaged_files=_some(self.damage.files),
            unverified_files=_some(unverified),
        )

    # --- inside

    @property
    def _problem(self) -> str:
        """
        Why consumers do not see what is shown; empty if they do.
        """
        return self.snapshots.problem if self.snapshots is not None else ""

    def _acquire(self) -> bool:
        if self.volume is None or not self._is_current():
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
        if self.volume is None:
            self._take_over()
        return True

    def _is_current(self) -> bool:
        """
        Whether the open folders are still at their paths.
        """
        is_there = self.volume is not None and self.volume.is_current()
        return is_there and (self.snapshots is None or self.snapshots.is_current())

    def _take_over(self) -> None:
        """
        Open what is shown, and inspect everything that a previous process left. Files that it
        published are ready before S3 answers.
        """
        settings, record = self._settings, self.record
        is_snapshot = settings.layout == "snapshot"
        # Hard links share their content: an edit in one snapshot would change all of them.
        mode = 0o644 if settings.source_kind == "release" else settings.file_mode
        mode &= ~0o222 if is_snapshot else ~0
        self.volume = volume = Volume(settings.dest_path, file_mode=mode, fsync=settings.fsync)
        record.read(volume.state)
        name = record.published.name if record.published is not None else ""
        try:
            if is_snapshot:
                self.snapshots = SnapshotLayout(settings, volume, name)
                is_lost = self.snapshots.is_lost
            else:
                self._in_place, is_lost = volume.open_in_place()
        except OSError:
            self.close()
            raise
        shown = self.shown
        if shown is not None and is_lost and name:
            log.warning("published_unknown", name=name)
            record.void(volume.state)
        elif self.snapshots is not None and shown is not None:
            record.follow_link(self.snapshots.name)
        if shown is not None:
            shown.take_back_modes()
        self.damage.begin(shown)
        if self.snapshots is not None:
            self.snapshots.drop_damaged(Fence())
        log.info("target_acquired", managed_files=len(shown.files) if shown is not None else 0)
        self.show()

    def _stand_by(self, holder: Mapping[str, Any]) -> None:
        """
        Wait for the lock holder; ready while what it has published fits the settings here.
        """
        said = f"pid {holder.get('pid')} on {holder.get('host')}"
        readiness, problem = self._look_from_outside(), ""
        if self.record.is_of_others:
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
                self.record.read(state)
        except OSError as error:
            self.record.published = None
            return Readiness(False, problem=f"{path} cannot be read: {error.strerror}")
        return readiness_of(self.published, 0)

    def _measure(self, files: int, unverified: int) -> None:
        published, metrics = self.published, self._status.metrics
        metrics.files.managed.set(files)
        metrics.files.unverified.set(unverified)
        metrics.partial.set(published is not None and published.missing > 0)
        metrics.gate.fallback.set(published is not None and bool(published.fallback))
        metrics.last_publish.set(published.published_at if published is not None else 0)


def _some(paths: Iterable[str]) -> list[str]:
    """
    Return up to NAMED_FILES paths, sorted; sorting all would cost more than the poll.
    """
    return sorted(itertools.islice(paths, NAMED_FILES))
