"""
The target folder: every effect on it, none outside it.
"""

from __future__ import annotations

import itertools
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import replace
from typing import NamedTuple

from s3_sync.digest import Content, has_digest, is_executable
from s3_sync.keys import RESERVED
from s3_sync.target.download import Download, Staging, md5_of
from s3_sync.target.managed import NAME as MANAGED
from s3_sync.target.managed import Managed, ManagedList, load_managed
from s3_sync.target.volume import (
    FOLDER_FLAGS,
    Volume,
    foreign_files,
    open_own_folder,
    read_blocks,
    set_mode,
    sync_folder,
)
from s3_sync.target.walk import Walk, Wanted, Way
from sidecar_runtime.fence import Fence
from sidecar_runtime.logs import get_logger
from sidecar_runtime.publish import write_all
from sidecar_runtime.snapshots import link_file

SECOND_NS = 1_000_000_000
# One count for the process: an abandoned cycle must not meet the files of its successor.
_NUMBERS = itertools.count()

_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OLD_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

log = get_logger("target")


class Torn(Exception):
    """
    A file is not what its list says: somebody changed it since it was looked at.
    """


class Staged(NamedTuple):
    """
    A file in staging that only waits for its name.

    Args:
        name: What it is called in staging.
        managed: What will be on record of it.
        replaces: Whether something was in its place.
    """

    path: str
    name: str
    managed: Managed
    replaces: bool


class Target:
    """
    One folder that is kept file by file, with the list of its files; publishes under a fence.

    It is the target folder itself, or a part of `.s3-sync` that becomes visible otherwise.

    Args:
        part: Path of the part in `.s3-sync`; empty for the target folder.
        files: What is in it; None: what its list says.

    Raises:
        OSError: From every method, where the file system fails; what was published stays.
    """

    def __init__(
        self,
        volume: Volume,
        *,
        file_mode: int,
        part: str = "",
        files: dict[str, Managed] | None = None,
    ) -> None:
        self.path = f"{volume.path}/{RESERVED}/{part}" if part else volume.path
        self._file_mode = file_mode
        self._fsync = volume.fsync
        self._staging = volume.staging
        # Modification times of deleted files that a successor must not repeat.
        self._gone: dict[str, int] = {}
        with ExitStack() as stack:
            above, self.folder = _open_part(part, volume, stack)
            shared = None if part else self.folder
            self.managed = ManagedList(
                above, shared, fsync=volume.fsync, name=list_name(part), files=files
            )
            stack.callback(self.managed.close)
            self._walk = Walk(self.folder, self.managed)
            self._open = stack.pop_all()

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
                    and held.matches(os.stat(path, dir_fd=self.folder, follow_symlinks=False))
                ):
                    found.add(path)
            except OSError:
                found.add(path)
        return found

    def foreign(self) -> list[str]:
        """
        Return all files and links that are not managed, bytecode and lost+found aside.
        """
        return foreign_files(self.folder, self.managed.files)

    def holds(self, path: str, content: Content) -> bool:
        """
        Whether the file on disk has that content already, told by MD5 or SHA-256.
        """
        etag = content.etag
        return self._holds(self._look(path), path, content, lambda blocks: has_digest(etag, blocks))

    def is_blocked(self, path: str, wanted: Wanted) -> bool:
        """
        Whether something that is not ours is in the way of a path; changes nothing.
        """
        return self._walk.is_blocked(path, wanted)

    # --- publishing

    def open_staging(self) -> Staging:
        """
        Open a new staging file; :meth:`publish` or :meth:`put` renames it, :meth:`discard` or
        :meth:`drop` removes it.
        """
        name = _staging_name()
        return Staging(os.open(name, _NEW_FILE, self._file_mode, dir_fd=self._staging), name)

    def adopt(self, path: str, content: Content, fence: Fence) -> None:
        """
        Record a file that holds that content already, and keep its times.
        """
        with fence, self._walk.to(path) as (folder, name):
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            self.managed.add(path, _managed(content, found))

    def stage(self, path: str, content: Content, staging: Staging) -> Staged:
        """
        Close a staging file that is whole, with the mode and time that it will have.
        """
        before = self._look(path)
        found = self._finish(staging, self._date(path, before), self._mode_of(content))
        return Staged(path, staging.name, _managed(content, found), before is not None)

    def along(self, wanted: Wanted) -> AbstractContextManager[Way]:
        """
        Return the way for :meth:`put` to many paths, made where folders are missing.
        """
        return self._walk.along(wanted)

    def put(self, staged: Staged, way: Way, fence: Fence, wanted: Wanted) -> None:
        """
        Put a staged file in its place by rename; dated anew where it has waited for others.

        A crash half-way leaves the old file, or the new one, and at most one staging file.

        Raises:
            Blocked: Something that is not ours is in the way.
            CycleAbandoned: The fence was revoked.
        """
        managed = staged.managed
        if managed.mtime_ns < time.time_ns() - SECOND_NS:
            managed = self._date_anew(staged)
        with fence:
            folder, name = way(staged.path)
            if staged.replaces:
                self._walk.make_way(staged.path, folder, name, wanted)
            self._rename(staged.name, folder, name, staged.path, managed)

    def drop(self, staged: Staged) -> None:
        """
        Remove a staged file that is not to be published.
        """
        with suppress(OSError):
            os.unlink(staged.name, dir_fd=self._staging)

    def publish(
        self,
        path: str,
        content: Content,
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
        if self._holds(before, path, content, lambda blocks: md5_of(blocks) == download.md5()):
            self.adopt(path, content, fence)
            return False
        staged = download.staging or self._stage(download)
        try:
            found = self._finish(staged, self._date(path, before), self._mode_of(content))
            with fence, self._walk.to(path, making_way=wanted) as (folder, name):
                if before is not None:
                    self._walk.make_way(path, folder, name, wanted)
                self._rename(staged.name, folder, name, path, _managed(content, found))
            staged.is_published = True
        finally:
            self.discard(staged)
        return True

    def take(self, path: str, source: Target, fence: Fence, wanted: Wanted) -> None:
        """
        Put a file of another target in its place here, as a hard link, or as a copy.

        A crash half-way leaves the old file, or the new one, and at most one staging file.

        Raises:
            Torn: It is not there as that target's list says.
            Blocked: Something that is not ours is in the way.
            CycleAbandoned: The fence was revoked.
        """
        held = source.managed.files[path]
        staged = _staging_name()
        try:
            with source._walk.to(path) as (folder, name):
                link_file(name, folder, staged, self._staging)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise Torn(path) from error
        try:
            taken = held.of(os.stat(staged, dir_fd=self._staging, follow_symlinks=False))
            if taken is None:
                raise Torn(path)
            with fence, self._walk.to(path, making_way=wanted) as (folder, name):
                self._walk.make_way(path, folder, name, wanted)
                self._rename(staged, folder, name, path, taken)
        finally:
            with suppress(FileNotFoundError):  # renaming a link over itself leaves both
                os.unlink(staged, dir_fd=self._staging)

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

    def _mode_of(self, content: Content) -> int:
        """
        Return the mode of a file; an executable one can be executed by whoever can read it.
        """
        mode = self._file_mode
        return mode | (mode & 0o444) >> 2 if is_executable(content.etag) else mode

    def _finish(self, staging: Staging, mtime_ns: int, mode: int) -> os.stat_result:
        """
        Give a staged file its mode and time, close it, and return what stat says of it.

        The time is set although it is the present one: on NFS a file gets its last time from the
        server, after the close, and then differs from what we record.
        """
        os.utime(staging.fd, ns=(mtime_ns, mtime_ns))
        found = os.fstat(staging.fd)
        if found.st_mode != stat.S_IFREG | mode:
            set_mode(staging.fd, mode)
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

    def _date_anew(self, staged: Staged) -> Managed:
        """
        Give a staged file the present time: readers ask what has changed since they looked.
        """
        now = time.time_ns()
        os.utime(staged.name, ns=(now, now), dir_fd=self._staging, follow_symlinks=False)
        found = os.stat(staged.name, dir_fd=self._staging, follow_symlinks=False)
        return replace(staged.managed, mtime_ns=found.st_mtime_ns)

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
            return os.stat(path, dir_fd=self.folder, follow_symlinks=False)
        except OSError:
            return None

    def _holds(
        self,
        found: os.stat_result | None,
        path: str,
        content: Content,
        is_same: Callable[[Iterator[bytes]], bool],
    ) -> bool:
        """
        Whether the file that was found has our mode, that size and that content.
        """
        if found is None or found.st_size != content.size_bytes:
            return False
        if found.st_mode != stat.S_IFREG | self._mode_of(content):
            return False
        try:
            with self._walk.to(path) as (folder, name):
                fd = os.open(name, _OLD_FILE, dir_fd=folder)
        except OSError:
            return False
        try:
            return stat.S_ISREG(os.fstat(fd).st_mode) and is_same(read_blocks(fd))
        finally:
            os.close(fd)


def _staging_name() -> str:
    return f"{os.getpid()}-{next(_NUMBERS)}.part"


def list_name(part: str) -> str:
    """
    Return the name of the list that lies beside a part of `.s3-sync`, or in it for the target.
    """
    name = part.rpartition("/")[2]
    return f"{name}.{MANAGED}" if name else MANAGED


def _open_part(part: str, volume: Volume, stack: ExitStack) -> tuple[int, int]:
    """
    Open a part; return the folder that holds its list, and the part itself.
    """
    above, folder = volume.state, volume.root if not part else volume.state
    for name in part.split("/") if part else ():
        if name in ("", ".", ".."):  # the last door: no caller has such names
            raise ValueError(f"not a part of .s3-sync: {part!r}")
        above, folder = folder, open_own_folder(name, folder)
        stack.callback(os.close, folder)
    return above, folder


def read_target(
    path: str, part: str, *, with_foreign: bool
) -> tuple[dict[str, Managed], list[str]]:
    """
    Return the managed and the foreign files of a target without touching it.

    Args:
        part: As of :class:`Target`.
    """
    with ExitStack() as stack:

        def enter(name: str, above: int) -> int:
            folder = os.open(name, FOLDER_FLAGS, dir_fd=above)
            stack.callback(os.close, folder)
            return folder

        try:
            folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, folder)
            above = enter(RESERVED, folder)
            if part:
                folder = enter(part, above)
            managed = load_managed(above, folder, list_name(part))
        except (FileNotFoundError, NotADirectoryError):
            return {}, []
        return managed, foreign_files(folder, managed) if with_foreign else []


def _managed(content: Content, found: os.stat_result) -> Managed:
    return Managed(content.etag, found.st_size, found.st_mtime_ns, found.st_ino, found.st_mode)
