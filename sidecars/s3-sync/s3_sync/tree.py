"""
The files of one tree: the target itself, a snapshot, or a snapshot that is built; what
one cycle brings into it, and which errors of the volume end that.

Every change of a file that consumers see is made here, inside the folder, and under a
fence; the layouts link and remove whole folders that nobody reads.
"""

from __future__ import annotations

import errno
import itertools
import math
import os
import stat
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from s3_sync.journal import Held, Journal, has_mode, read_journal
from s3_sync.names import Content, folders_of, has_digest, is_executable
from s3_sync.plan import State
from s3_sync.volume import (
    Blocked,
    Staging,
    StagingFolder,
    foreign_files,
    is_link,
    read_blocks,
    walk,
)
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.gate.gate import RevisionRefused
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.files import explain_os_error, stat_in, sync_folder
from sidecar_runtime.volume.snapshots import (
    FOLDER_FLAGS,
    FOLDER_MODE,
    OLD_FILE,
    opened,
    remove_tree,
)

SECOND_NS = 1_000_000_000
# A file is already gone, or was replaced by something else.
NOT_THERE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)

# Errors that end the cycle, because the volume fails and not a single path.
VOLUME_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ESTALE}

log = get_logger("target")


class Inspection(NamedTuple):
    """
    How many of our files one cycle inspects for damage: it costs more than polling S3,
    so it is spread over cycles, until one is found damaged.

    Args:
        files: How many in one cycle.
        cycles: In how many cycles all of them at most, even if that takes more files.
    """

    files: int
    cycles: int


# By source.
INSPECTIONS = {"listing": Inspection(500, 10), "release": Inspection(30, 30)}
AT_ONCE = Inspection(1, 1)  # all files in one cycle


class Tree:
    """
    An open folder, the files that s3-sync put into it, and their journal.

    Args:
        fd: The open folder; closed with this object.

    Attributes:
        files: The files, by path.
        damaged: Those that are known to be missing or altered; see :meth:`inspect`.
        journal: None while nobody reads the folder: it is listed when it becomes a
            snapshot.
        is_lost: Whether the list was missing or damaged, so that only the source can
            tell what should be there.
        before: The files that consumers see instead, until this folder is shown: a
            successor gets a later time.
        turn: Which part of the files was inspected last; 0 once in a round of all.

    Raises:
        OSError: From every method, if the file system fails; the files stay.
    """

    def __init__(self, path: str, fd: int, staging: StagingFolder) -> None:
        self.path = path
        self.fd = fd
        self.staging = staging
        self.files: dict[str, Held] = {}
        self.damaged: set[str] = set()
        self.journal: Journal | None = None
        self.is_lost = False
        self.before: Mapping[str, Held] = {}
        self.turn = 0

    def read(self, name: str, lists: int, *, published: float) -> Tree:
        """
        Read the list of the files from an open folder of lists, and keep it up to date;
        close the folder if that fails. How many are published: see `read_journal`.
        """
        try:
            listed = read_journal(name, lists, self.fd, published=published)
            self.files = listed.files
            self.is_lost = listed.is_lost
            self.journal = Journal(name, lists, listed, fsync=self.staging.fsync)
        except BaseException:
            self.close()
            raise
        return self

    @property
    def name(self) -> str:
        return os.path.basename(self.path)

    def close(self) -> None:
        """
        Close the folder and its journal.
        """
        os.close(self.fd)
        if self.journal:
            self.journal.close()

    # --- looking

    @property
    def intact(self) -> Mapping[str, Held]:
        """
        The files that are not known to be damaged.
        """
        if not self.damaged:
            return self.files
        return {p: held for p, held in self.files.items() if p not in self.damaged}

    def altered(self, paths: Collection[str]) -> set[str]:
        """
        Return those of our files that are no longer as they were put into place, or
        that are in a folder that is a link now, if only to the same files.
        """
        return self._edited(paths) | self._linked(paths)

    def _edited(self, paths: Iterable[str]) -> set[str]:
        return {
            path
            for path in paths
            if not self.files[path].is_like(stat_in(path, self.fd))
        }

    def _linked(self, paths: Collection[str]) -> set[str]:
        linked = tuple(
            f"{folder}/" for folder in folders_of(paths) if is_link(folder, self.fd)
        )
        return {path for path in paths if path.startswith(linked)}

    def is_replaced(self, path: str) -> bool:
        """
        Whether somebody has put another file where ours was; an edit makes none.
        """
        found = stat_in(path, self.fd)
        return found is not None and not self.files[path].is_of(found)

    def inspect(self, inspection: Inspection) -> bool:
        """
        Inspect another part of the files at each call, all of them if that finds
        damage, which rarely hits a single file; return whether there is new damage.
        """
        parts = math.ceil(len(self.files) / inspection.files)
        parts = min(parts, inspection.cycles) or 1
        self.turn = (self.turn + 1) % parts
        found = self._edited(itertools.islice(self.files, self.turn, None, parts))
        # Folders in one part: the files of each part are in nearly all of them.
        if not self.turn:
            found |= self._linked(self.files)
        if found <= self.damaged:
            return False
        self.damaged = self.altered(self.files)
        return True

    # --- changing

    def adopt(self, path: str, content: Content, fence: Fence) -> bool:
        """
        List a file, and keep its times, if it has the content already, according to its
        MD5 or SHA-256; return whether it has. It is unknown or damaged, or its name is
        of the other kind of source.
        """
        # Nobody else writes into a folder that is built; else, mostly, nothing is there,
        # and a walk takes longer.
        if self.journal is None or stat_in(path, self.fd) is None:
            return False
        try:
            with (
                walk(self.fd, path) as (folder, name),
                opened(name, folder, OLD_FILE) as fd,
            ):
                found = os.fstat(fd)
                if not (
                    found.st_size == content.size_bytes
                    and has_mode(found, self._mode_of(content))
                    and has_digest(content.etag, read_blocks(fd))
                ):
                    return False
        except OSError:
            return False
        with fence:
            self._list(path, Held.at(content, found, is_verified=True))
            self.damaged.discard(path)
        return True

    def put(self, path: str, content: Content, staging: Staging, fence: Fence) -> None:
        """
        Rename a complete, verified staging file into place.

        All slow work is done before the fence; inside it, only names change. A crash
        half-way leaves the old file, or the new one, and at most one staging file.

        Raises:
            Blocked: A file of another owner is in the way.
            CycleAbandoned: The fence was revoked.
        """
        found = self.staging.finish(
            staging, self._next_time(path), self._mode_of(content)
        )
        held = Held.at(content, found, is_verified=staging.is_verified)
        with fence:
            self._place(path, held, staging.name, self.staging.fd)
            staging.name = ""

    def take(self, path: str, other: Tree, fence: Fence) -> None:
        """
        Rename a file of another folder into place.

        Raises:
            Blocked: A file of another owner is in the way.
            CycleAbandoned: The fence was revoked.
        """
        with fence, walk(other.fd, path) as (folder, name):
            self._place(path, other.files[path], name, folder)

    def delete(self, path: str, fence: Fence) -> None:
        """
        Remove a file, ours or not, and the folders that it leaves empty.
        """
        with fence:
            self._remove(path)
            with suppress(OSError):  # not empty, or gone
                while path := path.rpartition("/")[0]:
                    with walk(self.fd, path) as (folder, name):
                        os.rmdir(name, dir_fd=folder)

    def purge(self, fence: Fence) -> None:
        """
        Remove everything that is not ours, as far as possible, from a folder that
        belongs to s3-sync alone: a gate's command, and readers, may leave files and
        bytecode.
        """
        for path in [*foreign_files(self.fd, self.files, spared=())]:
            with suppress(OSError):
                self.delete(path, fence)

    def forget(self, path: str, fence: Fence) -> None:
        """
        Remove a file from the list; the file on disk belongs to another process from
        now on.
        """
        with fence:
            self._forget(path)

    def compact(self, fence: Fence) -> None:
        """
        Compact the journal.
        """
        if self.journal:
            with fence:
                self.journal.compact(self.files)

    # --- inside

    def _mode_of(self, content: Content) -> int:
        """
        Return the mode of a file; an executable file is executable for everyone who can
        read it.
        """
        mode = self.staging.file_mode
        mode |= (mode & 0o444) >> 2 if is_executable(content.etag) else 0
        return stat.S_IFREG | mode

    def _next_time(self, path: str) -> int:
        """
        Return the current time, or the next full second after the predecessor's if that
        is later.

        Python's bytecode cache and Airflow's file processor compare whole seconds and
        sizes.
        """
        times = [
            one.mtime_ns for one in (self.files.get(path), self.before.get(path)) if one
        ]
        there = stat_in(path, self.fd)
        if there:
            times.append(there.st_mtime_ns)
        return max(time.time_ns(), (max(times, default=0) // SECOND_NS + 1) * SECOND_NS)

    def _place(self, path: str, held: Held, name: str, fd: int) -> None:
        with walk(self.fd, path, self._make_folder) as (folder, last):
            self._make_way(path, folder, last)
            before = self.files.get(path)
            self._list(path, held)
            try:
                os.rename(name, last, src_dir_fd=fd, dst_dir_fd=folder)
            except OSError:
                self._note(path, before)
                raise
            self.damaged.discard(path)
            if self.staging.fsync:  # an O_PATH descriptor cannot be flushed
                with opened(".", folder) as readable:
                    sync_folder(readable)

    def _list(self, path: str, held: Held) -> None:
        if self.journal:
            self.journal.add(path, held)
        self.files[path] = held

    def _note(self, path: str, held: Held | None) -> None:
        if self.journal:
            self.journal.note(path, held)
        self.files.pop(path, None)
        if held:
            self.files[path] = held

    def _forget(self, path: str) -> None:
        if path in self.files:
            self._note(path, None)
            self.damaged.discard(path)

    def _make_folder(self, path: str, name: str, fd: int) -> None:
        """
        Create one folder; remove a symlink, or a file of ours, in its place: the
        source, where no path is both, does not have that file any more, and with
        S3_SYNC_DELETE=none, too, a path cannot be both.
        """
        try:
            os.mkdir(name, FOLDER_MODE, dir_fd=fd)
        except FileExistsError:
            if is_link(name, fd):
                log.warning("symlink_replaced", path=path)
            elif path not in self.files or self.is_replaced(path):
                raise Blocked(path) from None
            self._remove(path)
            os.mkdir(name, FOLDER_MODE, dir_fd=fd)

    def _make_way(self, path: str, folder: int, name: str) -> None:
        """
        Remove a folder that is in place of a file, unless it contains files of other
        owners.

        Bytecode is removed with it, because its sources are gone from the bucket.
        """
        found = stat_in(name, folder)
        if found and stat.S_ISLNK(found.st_mode):
            log.warning("symlink_replaced", path=path)
        if found is None or not stat.S_ISDIR(found.st_mode):
            return
        above = f"{path}/"
        ours = [
            one
            for one in self.files
            if one.startswith(above) and not self.is_replaced(one)
        ]
        with opened(name, folder, FOLDER_FLAGS) as fd:
            if any(foreign_files(fd, {one.removeprefix(above) for one in ours})):
                raise Blocked(path)
        for one in ours:
            self._remove(one)
        remove_tree(name, folder)

    def _remove(self, path: str) -> None:
        held = self.files.get(path)
        is_damaged = path in self.damaged
        self._forget(path)
        try:
            with walk(self.fd, path) as (folder, name):
                os.unlink(name, dir_fd=folder)
        except NOT_THERE:
            pass
        except OSError:
            if held:
                self._note(path, held)
            if is_damaged:
                self.damaged.add(path)
            raise


# --- what one cycle brings into a tree


@dataclass(slots=True)
class Fill:
    """
    What is brought into one tree.

    Args:
        until: When the cycle's time for downloads is up (monotonic seconds).
        failed: The error of each file that could not be brought, or removed, by path.
        unreached: Paths for which the time was not enough.
        has_read: Whether an object could be read, even an empty one.
    """

    tree: Tree
    fence: Fence
    until: float
    failed: dict[str, SidecarError] = field(default_factory=dict)
    unreached: set[str] = field(default_factory=set)
    downloaded_bytes: int = 0
    has_read: bool = False

    def fail_on_disk(self, path: str, error: OSError) -> None:
        """
        Note a file-system error of one path.

        Raises:
            OSError: The volume fails as a whole.
        """
        if error.errno in VOLUME_ERRORS:
            raise error
        self.failed[path] = explain_os_error(error, f"cannot change {path!r}")

    def raise_first(self, but: Collection[str] = ()) -> None:
        """
        Raise the first error of a file that is not among those to pass over.
        """
        for path, error in self.failed.items():
            if path not in but:
                raise error


@dataclass(slots=True)
class Build:
    """
    A tree that is brought up to date with a state, as far as possible.

    Args:
        gone: Files that no state has any more, in place: removed last, or first where
            the volume is full.
        name: The name of what it holds: a revision, which may have an appendix, or a
            partial state.
        missing: Files of the state that are missing or out of date, or that the gate
            refuses, and those that only the second listing has, with the error.
        fallback: The refused revision that it replaces; empty if this is the newest.
        refusal: Why that was refused.
    """

    state: State
    gone: set[str]
    fill: Fill = field(init=False)
    name: str = ""
    missing: dict[str, SidecarError] = field(default_factory=dict)
    fallback: str = ""
    refusal: RevisionRefused | None = None
