"""
The target folder: every effect on it, none outside it.
"""

from __future__ import annotations

import itertools
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

from s3_sync.download import Download, Staging, md5_of
from s3_sync.keys import RESERVED
from s3_sync.listing import Entry
from s3_sync.managed import Managed, ManagedList, load_managed
from s3_sync.volume import (
    FOLDER_FLAGS,
    foreign_files,
    open_folders,
    open_own_folder,
    read_blocks,
    set_mode,
    sync_folder,
)
from s3_sync.walk import Walk, Wanted
from sidecar_runtime.fence import Fence
from sidecar_runtime.logs import get_logger
from sidecar_runtime.publish import write_all, write_file

SECOND_NS = 1_000_000_000
STAGING = "staging"
# One count for the process: an abandoned cycle must not meet the files of its successor.
_NUMBERS = itertools.count()

_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OLD_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

log = get_logger("target")


class Target:
    """
    One open target; belongs to one thread, publishes under its fence.

    Raises:
        OSError: From every method, where the file system fails; what was published stays.
    """

    def __init__(self, path: str, *, file_mode: int, fsync: bool) -> None:
        self.path = path
        self._file_mode = file_mode
        self._regular_mode = stat.S_IFREG | file_mode
        self._fsync = fsync
        # Modification times of deleted files that a successor must not repeat.
        self._gone: dict[str, int] = {}
        with ExitStack() as stack:
            self._root, self._state = open_folders(path)
            stack.callback(os.close, self._root)
            stack.callback(os.close, self._state)
            self._staging = open_own_folder(STAGING, self._state)
            stack.callback(os.close, self._staging)
            self._sweep()
            self.managed = ManagedList(self._state, self._root, fsync=fsync)
            stack.callback(self.managed.close)
            self._walk = Walk(self._root, self.managed)
            self._open = stack.pop_all()

    def is_current(self) -> bool:
        """
        Whether the folders that we hold open are still the ones at their paths.

        They are not after somebody removed the target, or `.s3-sync`, and made it anew.
        """
        try:
            root = os.stat(self.path)
            state = os.stat(RESERVED, dir_fd=self._root, follow_symlinks=False)
            staging = os.stat(STAGING, dir_fd=self._state, follow_symlinks=False)
        except OSError:
            return False
        return (
            os.path.samestat(root, os.fstat(self._root))
            and os.path.samestat(state, os.fstat(self._state))
            and os.path.samestat(staging, os.fstat(self._staging))
        )

    def close(self) -> None:
        """
        Close all that is open.
        """
        self._open.close()

    # --- looking

    def damaged(self, paths: Iterator[str]) -> set[str]:
        """
        Return those of the managed paths that are not on disk as they were published.
        """
        files = self.managed.files
        is_real = {"": True}  # by folder: neither it nor one above it is a symlink
        found = set()
        for path in paths:
            held = files.get(path)
            if held is None:
                continue
            try:
                if not (
                    self._walk.is_real_folder(path.rpartition("/")[0], is_real)
                    and held.matches(os.stat(path, dir_fd=self._root, follow_symlinks=False))
                ):
                    found.add(path)
            except OSError:
                found.add(path)
        return found

    def foreign(self) -> list[str]:
        """
        Return all files and links that are not managed, bytecode and lost+found aside.
        """
        return foreign_files(self._root, self.managed.files)

    def holds(self, path: str, entry: Entry) -> bool:
        """
        Whether the file on disk has the object's content already, told by its MD5.

        The caller has made sure that the ETag can be one.
        """
        return self._holds(self._look(path), path, entry.size_bytes, lambda: entry.etag)

    def is_blocked(self, path: str, wanted: Wanted) -> bool:
        """
        Whether something that is not ours is in the way of a path; changes nothing.
        """
        return self._walk.is_blocked(path, wanted)

    # --- publishing

    def open_staging(self) -> Staging:
        """
        Open a new staging file; :meth:`publish` renames it, :meth:`discard` removes it.
        """
        name = f"{os.getpid()}-{next(_NUMBERS)}.part"
        return Staging(os.open(name, _NEW_FILE, self._file_mode, dir_fd=self._staging), name)

    def adopt(self, path: str, entry: Entry, fence: Fence) -> None:
        """
        Record a file that holds the object's content already, and keep its times.
        """
        with fence, self._walk.to(path) as (folder, name):
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            self.managed.add(path, _managed(entry, found))

    def publish(
        self,
        path: str,
        entry: Entry,
        download: Download,
        fence: Fence,
        wanted: Wanted,
    ) -> bool:
        """
        Put a verified download in its place by rename; False where the content was there.

        All that takes time comes before the fence; inside it are only names.
        A crash half-way leaves the old file, or the new one, and at most one staging file.

        Args:
            wanted: Whether a path is in the listing; what is not may make way.

        Raises:
            Blocked: Something that is not ours is in the way.
            CycleAbandoned: The fence was revoked.
        """
        before = self._look(path)
        if self._holds(before, path, download.size_bytes, download.md5):
            self.adopt(path, entry, fence)
            return False
        staged = download.staging or self._stage(download)
        try:
            found = self._finish(staged, self._date(path, before))
            with fence, self._walk.to(path, making_way=wanted) as (folder, name):
                self._walk.make_way(path, folder, name, wanted)
                self._rename(staged.name, folder, name, path, _managed(entry, found))
            staged.is_published = True
        finally:
            self.discard(staged)
        return True

    def discard(self, staging: Staging) -> None:
        """
        Close a staging file, and remove it if it was not published.
        """
        try:
            staging.close()
        finally:
            if not staging.is_published:
                with suppress(FileNotFoundError):
                    os.unlink(staging.name, dir_fd=self._staging)

    def delete(self, path: str, fence: Fence) -> bool:
        """
        Remove a file and the folders that it leaves empty; False where it was gone.
        """
        with fence:
            if held := self.managed.files.get(path):
                self._gone[path] = held.mtime_ns
            try:
                with self._walk.to(path) as (folder, name):
                    self._walk.remove(path, name, folder)
                is_removed = True
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                is_removed = False  # gone already, or somebody put something else there
                self.managed.remove(path)
            self._walk.remove_empty_folders(path)
        return is_removed

    def forget(self, path: str, fence: Fence) -> None:
        """
        Strike a file from the list; what is on disk from now on is somebody else's.
        """
        with fence:
            self.managed.remove(path)

    def end_cycle(self, fence: Fence) -> None:
        """
        Keep the list of managed files in order, and forget deletions that are in the past.
        """
        with fence:
            self.managed.compact()
        now = time.time_ns()
        self._gone = {path: ns for path, ns in self._gone.items() if ns > now - SECOND_NS}

    def write_state(self, name: str, content: bytes, fence: Fence) -> None:
        """
        Replace a file in `.s3-sync`.
        """
        with fence:
            write_file(name, content, 0o664, fsync=self._fsync, dir_fd=self._state)

    # --- inside

    def _stage(self, download: Download) -> Staging:
        staging = self.open_staging()
        try:
            for block in download.blocks():
                write_all(staging.fd, block)
        except BaseException:
            self.discard(staging)
            raise
        return staging

    def _finish(self, staging: Staging, mtime_ns: int) -> os.stat_result:
        """
        Give a staged file its mode and time, close it, and return what stat says of it.

        The time is set although it is the present one: on NFS a file gets its last time from the
        server, after the close, and then differs from what we record.
        """
        os.utime(staging.fd, ns=(mtime_ns, mtime_ns))
        found = os.fstat(staging.fd)
        if found.st_mode != self._regular_mode:
            set_mode(staging.fd, self._file_mode)
            found = os.fstat(staging.fd)
        if self._fsync:
            os.fsync(staging.fd)
        staging.close()
        return found

    def _date(self, path: str, before: os.stat_result | None) -> int:
        """
        Return the present, or the second after the predecessor's where that is later.

        Python's bytecode cache and Airflow's file processor compare whole seconds and sizes.
        """
        predecessors = [self._gone.get(path, 0)]
        if held := self.managed.files.get(path):
            predecessors.append(held.mtime_ns)
        if before is not None:
            predecessors.append(before.st_mtime_ns)
        earliest = (max(predecessors) // SECOND_NS + 1) * SECOND_NS
        return max(time.time_ns(), earliest)

    def _rename(self, staged: str, folder: int, name: str, path: str, new: Managed) -> None:
        before = self.managed.files.get(path)
        self.managed.add(path, new)
        try:
            os.rename(staged, name, src_dir_fd=self._staging, dst_dir_fd=folder)
        except OSError:
            if before is None:
                self.managed.remove(path)
            else:
                self.managed.add(path, before)
            raise
        if self._fsync:
            sync_folder(folder)

    def _look(self, path: str) -> os.stat_result | None:
        """
        Return what is at a path, by a quick look that may follow links on the way.
        """
        try:
            return os.stat(path, dir_fd=self._root, follow_symlinks=False)
        except OSError:
            return None

    def _holds(
        self, found: os.stat_result | None, path: str, size_bytes: int, md5: Callable[[], str]
    ) -> bool:
        """
        Whether the file that was found has our mode, that size and that content.
        """
        if found is None or found.st_size != size_bytes or found.st_mode != self._regular_mode:
            return False
        try:
            with self._walk.to(path) as (folder, name):
                fd = os.open(name, _OLD_FILE, dir_fd=folder)
        except OSError:
            return False
        try:
            return stat.S_ISREG(os.fstat(fd).st_mode) and md5_of(read_blocks(fd)) == md5()
        finally:
            os.close(fd)

    def _sweep(self) -> None:
        """
        Remove what a killed predecessor left in staging.
        """
        for name in os.listdir(self._staging):
            try:
                os.unlink(name, dir_fd=self._staging)
            except OSError as error:
                log.warning("leftover_kept", name=name, error=error.strerror)


def read_target(path: str, *, with_foreign: bool) -> tuple[dict[str, Managed], list[str]]:
    """
    Return the managed and the foreign files of a target without touching it.
    """
    with ExitStack() as stack:
        try:
            root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, root)
            state = os.open(RESERVED, FOLDER_FLAGS, dir_fd=root)
            stack.callback(os.close, state)
            managed = load_managed(state, root)
        except FileNotFoundError:
            return {}, []
        return managed, foreign_files(root, managed) if with_foreign else []


def _managed(entry: Entry, found: os.stat_result) -> Managed:
    return Managed(entry.etag, found.st_size, found.st_mtime_ns, found.st_ino, found.st_mode)
