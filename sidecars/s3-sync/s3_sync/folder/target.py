"""
The target of one thread: its lock, how many files each cycle inspects, what it shows,
`published.json`, the record of that, and whether consumers have what they need: ready
(``Record.readiness``).
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from typing import Any, NamedTuple

from s3_sync.folder.folder import Folder
from s3_sync.folder.journal import NAME as MANAGED
from s3_sync.folder.snapshots import SnapshotLayout
from s3_sync.folder.volume import LINK, SNAPSHOTS, STAGING, Volume, is_link
from s3_sync.metrics import Status
from s3_sync.names import RESERVED, Content
from s3_sync.reasons import failure, link_elsewhere
from s3_sync.settings import Settings
from sidecar_runtime.errors import SidecarError, counted, json_text
from sidecar_runtime.fence import Fence
from sidecar_runtime.health import Readiness
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.files import (
    TargetLock,
    read_facts,
    read_holder,
    stat_in,
    write_file,
)
from sidecar_runtime.volume.snapshots import opened, remove_tree

log = get_logger("target")

NAME = "published.json"
# Unix time of the year 2286; later times are invalid.
LATEST = 10_000_000_000
# The prefix of the names of partial states.
PARTIAL = "partial-"
# The name of a change that is partially in place; never the name of a snapshot.
UNFINISHED = f"{PARTIAL}unfinished"


def partial_name(files: Mapping[str, Content]) -> str:
    """
    Return the name of a partial state; equal files have equal names.
    """
    digest = hashlib.blake2b(digest_size=6)
    for path, content in sorted(files.items()):
        digest.update(f"{path}\0{content.etag}\0{content.size_bytes}\0".encode())
    return f"{PARTIAL}{digest.hexdigest()}"


class Published(NamedTuple):
    """
    What is published.

    Args:
        revision: The source's revision if it is completely published; else empty.
        aim: The revision that should be published; differs from `revision` while
            partial.
        name: The name of the state, and of its snapshot.
        missing: The number of files missing or out of date; 0 if the state is complete.
        fallback: The refused revision if a fallback is published; else empty.
        published_at: Unix time of the publish.
        files: The number of files after the publish.
        damaged: How many of them are known to be missing or altered on disk.
        sequence: Of a release: the highest sequence seen; else 0.
        signed_by: The key that signed it; empty if none had to.
        added, changed, deleted: How many files differ from the previous publish.
    """

    revision: str = ""
    aim: str = ""
    name: str = ""
    missing: int = 0
    fallback: str = ""
    published_at: float = 0.0
    files: int = 0
    damaged: int = 0
    sequence: int = 0
    signed_by: str = ""
    added: int = 0
    changed: int = 0
    deleted: int = 0

    @property
    def shortfall(self) -> str:
        """
        What the state lacks, in words; empty if it is the complete newest revision.
        """
        said = []
        if self.missing:
            said.append(f"{_are(self.missing, 'file')} missing or out of date")
        if self.fallback:
            said.append(f"the gate refused {self.fallback}, so this is a fallback")
        return "; ".join(said)


def parse(facts: Mapping[str, Any]) -> Published | None:
    """
    Return what a record says; None if it is malformed. Pure.
    """
    said = Published()
    for name, default in Published._field_defaults.items():
        if isinstance(facts.get(name), type(default)):
            said = said._replace(**{name: facts[name]})
    is_consistent = bool(said.name) and (said.missing == 0) == bool(said.revision)
    return said if is_consistent and 0 < said.published_at < LATEST else None


class Record:
    """
    The record of one source, one layout and one choice of files on a volume.

    Attributes:
        published: What the record says, or would say if the volume took it; None if
            nothing is published that fits the settings: its files are not those that
            consumers need, or not where they look.
        is_of_source: Whether the record is of this source and layout, whatever files
            were chosen.
        sequence: Of releases of this source: the highest sequence seen, and the key
            that signed it.
        is_written: Whether the record on disk is the one that this process knows.
    """

    def __init__(self, settings: Settings) -> None:
        self._where: dict[str, object] = {
            "source": settings.source,
            "kind": settings.source_kind,
            "layout": settings.layout,
        }
        if settings.trusted_keys is not None:
            self._where["signed"] = True
        filters = [list(globs) for globs in (settings.include, settings.exclude)]
        if any(filters):
            self._where["filters"] = filters
        self._pin = settings.revision
        self.published: Published | None = None
        self.is_of_source = False
        self.sequence = (0, "")
        self.is_written = True

    def read(self, state: int) -> None:
        """
        Read the record from the open `.s3-sync`; one that is missing, malformed, or of
        other settings says nothing.
        """
        facts = read_facts(NAME, state)
        where = {"filters": None, **self._where}
        differs = {name for name, value in where.items() if facts.get(name) != value}
        said, is_pinned = (
            parse(facts),
            not self._pin or facts.get("revision") == self._pin,
        )
        self.published = said if is_pinned and not differs else None
        self.is_of_source = differs <= {"filters"}
        self.sequence = (
            (said.sequence, said.signed_by) if said and self.is_of_source else (0, "")
        )
        self.is_written = True

    def read_outside(self, path: str) -> Published | None:
        """
        Read the record of a target without the lock.

        Raises:
            OSError: There is no target, or it cannot be read.
        """
        self.published = None
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        with opened(path, flags=flags) as root, opened(RESERVED, root) as state:
            self.read(state)
        return self.published

    def write(self, volume: Volume, fence: Fence, published: Published) -> None:
        """
        Replace the record.

        Raises:
            OSError: It was not written. This process knows it all the same.
        """
        self.published, self.is_of_source, self.is_written = published, True, False
        facts = published._asdict()
        if not published.sequence:
            del facts["sequence"], facts["signed_by"]
        content = json_text(facts | self._where).encode() + b"\n"
        with fence:
            write_file(
                NAME, content, 0o664, fsync=volume.staging.fsync, dir_fd=volume.state
            )
        self.is_written = True

    def readiness(self, problem: SidecarError | None = None) -> Readiness:
        """
        Return whether what is published is there and intact.

        Args:
            problem: Why consumers do not see what is published.
        """
        published = self.published
        if published is None:
            said = "nothing is published yet that fits the settings here"
            return Readiness(problem=failure("nothing_published", said))
        if published.damaged:
            files = _are(published.damaged, "published file")
            said = f"{files} missing or altered on disk"
            problem = failure("files_damaged", said)
        return Readiness(
            revision=published.revision,
            published_at=published.published_at,
            problem=problem,
            shortfall=published.shortfall,
        )


def _are(number: int, noun: str) -> str:
    return f"{counted(number, noun)} {'is' if number == 1 else 'are'}"


def now() -> float:
    """
    Return the Unix time of a publish, in milliseconds.
    """
    return round(time.time(), 3)


LOCK = "lock"
# Inspecting every file costs more than polling S3, so it is spread over cycles, until
# one is found damaged. By source: how many files are inspected in one cycle, or more
# where all of them would take more cycles than the second number.
SCANS = {"listing": (500, 10), "release": (30, 30)}


class Target:
    """
    The target while this process may hold its lock; the lock and the status belong to
    the process.

    Attributes:
        volume: The open target; None while another process holds the lock.
        snapshots: The snapshot layout; None in place.
        recorded: What was shown at the last record of this process.
    """

    def __init__(self, settings: Settings, lock: TargetLock, status: Status) -> None:
        self._settings = settings
        self._lock = lock
        self._status = status
        self.record = Record(settings)
        self.volume: Volume | None = None
        self.snapshots: SnapshotLayout | None = None
        self._in_place: Folder | None = None
        self.recorded: Mapping[str, Content] = {}

    # --- what is there

    @property
    def shown(self) -> Folder | None:
        """
        What consumers see; None before the first publish of a snapshot.
        """
        return self.snapshots.shown if self.snapshots is not None else self._in_place

    @property
    def published(self) -> Published | None:
        """
        What the record says; None if nothing is published that fits the settings.
        """
        return self.record.published

    def is_good(self, fence: Fence) -> bool:
        """
        Whether what is published may stay: damage that is left now needs another state.
        """
        self.show(fence)
        return self._status.readiness.ready

    def show(self, fence: Fence) -> None:
        """
        Show readiness, metrics and status of what is published; note damage in the
        record, which a standby reads.
        """
        shown, published, volume = self.shown, self.published, self.volume
        files = shown.files if shown is not None else {}
        if shown is not None and published is not None and volume is not None:
            # A list that was lost may have dropped some of the files.
            damaged = len(shown.lost()) + max(0, published.files - len(files))
            if damaged != published.damaged:
                with suppress(OSError):
                    self.record.write(
                        volume, fence, published._replace(damaged=damaged)
                    )
        problem = self.snapshots.problem if self.snapshots is not None else None
        self._status.readiness = self.record.readiness(problem)
        self._status.show(managed_files=len(files))
        published, metrics = self.published or Published(), self._status.metrics
        metrics.files.managed.set(len(files))
        metrics.partial.set(published.missing > 0)
        metrics.gate.fallback.set(bool(published.fallback))
        metrics.last_publish.set(published.published_at)

    # --- in a cycle

    def inspect(self, fence: Fence) -> None:
        """
        Inspect a part of what is shown; and undo what needs no source.
        """
        if self.shown is None:
            return
        scan, is_snapshot = (
            SCANS[self._settings.source_kind],
            self.snapshots is not None,
        )
        is_new = self.shown.inspect(*scan, is_snapshot=is_snapshot)
        if self.snapshots is not None:
            if is_new:
                self.snapshots.drop_damaged(fence)
            self.snapshots.show(fence)
        if is_new:  # a cycle may take minutes
            self.show(fence)

    def write(self, published: Published, fence: Fence) -> None:
        """
        Record what is published.

        Raises:
            OSError: It was not written. This process knows it all the same.
        """
        assert self.volume is not None and self.shown is not None
        self.record.write(self.volume, fence, published)
        if published.name != UNFINISHED:
            self._remember(self.shown)

    def finish(self, fence: Fence) -> None:
        """
        Remove snapshots that need not be kept, and what another layout left on this
        volume, now that what is shown is recorded.
        """
        assert self.volume is not None
        if self.snapshots is None:
            _remove_snapshots(self.volume, fence)
            return
        try:
            self.snapshots.prune(fence)
            if self._settings.delete != "none":
                _remove_in_place(self.volume, fence)
        except OSError as error:
            log.warning("leftover_kept", name=error.filename, error=error.strerror)

    # --- opening

    def acquire(self) -> str:
        """
        Take the lock and open the target; return the process that holds it instead, in
        words.

        Raises:
            OSError: The target cannot be opened or written; what is published still
                counts.
        """
        if not all(
            part is None or part.is_current() for part in (self.volume, self.snapshots)
        ):
            self.close()
        try:
            volume = self.volume or Volume(self._settings.dest_path)
            try:
                is_ours = self._lock.try_acquire(LOCK, volume.state)
                holder = "" if is_ours else read_holder(LOCK, volume.state)
                if is_ours and self.volume is None:
                    self._take_over(volume)
            finally:
                if self.volume is None:
                    volume.close()
        except OSError as error:
            self._status.readiness = self._look_from_outside()
            if error.filename in (LOCK, STAGING, SNAPSHOTS, MANAGED, NAME):
                error.filename = f"{RESERVED}/{error.filename}"  # for the operator
            raise
        if is_ours:
            return ""
        self.close()
        return self._stand_by(holder)

    def close(self) -> None:
        """
        Close all open folders and files; the process keeps the lock.
        """
        for part in (self._in_place, self.snapshots, self.volume):
            if part is not None:
                part.close()
        self._in_place = self.snapshots = self.volume = None

    def _take_over(self, volume: Volume) -> None:
        """
        Open what is shown, and inspect everything that a previous process left. Files
        that it published are ready before S3 answers.
        """
        settings, record = self._settings, self.record
        is_snapshot = settings.layout == "snapshot"
        # Hard links share their content: an edit in one snapshot would change all of
        # them.
        mode = 0o644 if settings.source_kind == "release" else settings.file_mode
        volume.begin(mode & (~0o222 if is_snapshot else ~0), fsync=settings.fsync)
        record.read(volume.state)
        name = record.published.name if record.published is not None else ""
        if is_snapshot:
            self.snapshots = SnapshotLayout(settings, volume, name)
        else:
            self._in_place = open_in_place(volume)
        self.volume = volume
        shown = self.shown
        is_there = self.snapshots is None or self.snapshots.name == name
        if name and (shown is None or shown.is_lost or not is_there):
            log.warning("published_unknown", name=name)
            record.published = None  # it is unknown which files on disk belong to it
        self.recorded = {}
        if shown is not None:
            self._remember(shown)
            shown.inspect(len(shown.files) or 1, 1)
        if self.snapshots is not None:
            self.snapshots.drop_damaged(Fence())
        log.info("target_acquired", managed_files=len(self.recorded))
        self.show(Fence())

    def _remember(self, shown: Folder) -> None:
        self.recorded = dict(shown.files)
        unverified = sum(not held.is_verified for held in shown.files.values())
        self._status.metrics.files.unverified.set(unverified)

    def _stand_by(self, holder: str) -> str:
        """
        Wait for the lock holder; ready while what it has published fits the settings
        here.
        """
        readiness = self._look_from_outside()
        problem = readiness.problem
        if problem is not None:
            said = f"{holder} holds the lock: {problem.message}"
            readiness = readiness._replace(problem=failure(problem.reason, said))
        self._status.readiness = readiness
        self._status.details = {}
        return holder

    def _look_from_outside(self) -> Readiness:
        """
        Return readiness as the record says it, without the lock.
        """
        path = self._settings.dest_path
        try:
            self.record.read_outside(path)
        except OSError as error:
            said = f"{path} cannot be read: {error.strerror}"
            return Readiness(problem=failure("target_unreadable", said))
        current = os.path.basename(os.path.realpath(f"{path}/{LINK}"))
        name = (self.published or Published()).name
        is_seen = self._settings.layout == "in-place" or current == name
        return self.record.readiness(None if is_seen else link_elsewhere())


def open_in_place(volume: Volume) -> Folder:
    """
    Open the target itself as a folder of files.
    """
    folder = Folder(volume.path, os.dup(volume.root), volume.staging)
    return folder.read(MANAGED, volume.state, is_shared=True)


def _remove_in_place(volume: Volume, fence: Fence) -> None:
    """
    Remove the files that were published in place, now that a snapshot is; those that
    were altered belong to others.
    """
    if stat_in(MANAGED, volume.state) is None:
        return
    with closing(open_in_place(volume)) as folder:
        for path in folder.files.keys() - folder.damaged(folder.files):
            folder.delete(path, fence)
    with fence:
        os.unlink(MANAGED, dir_fd=volume.state)


def _remove_snapshots(volume: Volume, fence: Fence) -> None:
    """
    Remove what the snapshot layout left, now that the files in place are published.
    """
    with fence:
        place = f"{RESERVED}/{SNAPSHOTS}/"
        if is_link(LINK, volume.root) and os.readlink(
            LINK, dir_fd=volume.root
        ).startswith(place):
            os.unlink(LINK, dir_fd=volume.root)
        remove_tree(SNAPSHOTS, volume.state)
