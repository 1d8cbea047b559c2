"""
One folder that is kept file by file: the target itself, a snapshot, or a snapshot that is built.

Every change of files is made here, inside the folder, and under a fence.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress

from s3_sync.digest import Content, has_digest, is_executable
from s3_sync.folder.journal import Held, Journal
from s3_sync.folder.paths import (
    BYTECODE,
    OLD_FILE,
    PATH_FLAGS,
    Blocked,
    foreign_files,
    is_link,
    is_real_folder,
    read_blocks,
    split,
    sync_folder,
    walk,
)
from s3_sync.folder.staging import Staging, StagingFolder
from s3_sync.keys import DEPTH_LIMIT
from sidecar_runtime.fence import Fence
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.files import free_bytes, stat_in
from sidecar_runtime.volume.snapshots import FOLDER_MODE

SECOND_NS = 1_000_000_000
NAMED_FILES = 50

log = get_logger("target")

IsWanted = Callable[[str], bool]
"""Whether a path is wanted: files of ours that are not may be removed if they are in the way."""


class Folder:
    """
    An open folder, the files that s3-sync put into it, and their journal.

    Args:
        fd: The open folder; closed with this object.
        files: What is in it, by path.
        journal: None while nobody reads the folder: it is listed when it becomes a snapshot.

    Attributes:
        files: The files, by path. They may have been altered since: see :meth:`damaged`.

    Raises:
        OSError: From every method, if the file system fails; the files stay.
    """

    def __init__(
        self,
        path: str,
        fd: int,
        files: dict[str, Held],
        journal: Journal | None,
        staging: StagingFolder,
    ) -> None:
        self.path = path
        self.fd = fd
        self.files = files
        self.journal = journal
        self.staging = staging
        # Modification times of deleted and replaced files, which a successor must not reuse.
        self._gone: dict[str, int] = {}
        # Files of other owners that could not be removed.
        self._left: set[str] = set()

    def close(self) -> None:
        """
        Close the folder and its journal.
        """
        with ExitStack() as stack:
            stack.callback(os.close, self.fd)
            if self.journal is not None:
                self.journal.close()

    # --- looking

    @property
    def unverified(self) -> list[str]:
        """
        The files whose content no checksum has verified.
        """
        return [path for path, held in self.files.items() if not held.is_verified]

    def damaged(self, paths: Iterable[str]) -> set[str]:
        """
        Return those of our files among the paths that are no longer as they were put into place.
        """
        is_real = {"": True}
        found = set()
        for path in list(paths):
            held = self.files.get(path)
            if held is None:
                continue
            try:
                is_ours = is_real_folder(path.rpartition("/")[0], self.fd, is_real)
                if not (is_ours and held.matches(os.lstat(path, dir_fd=self.fd))):
                    found.add(path)
            except OSError:
                found.add(path)
        return found

    def foreign(self) -> list[str]:
        """
        Return all files and links that are not ours, except bytecode and lost+found.
        """
        return foreign_files(self.fd, self.files)

    def free_bytes(self) -> float:
        """
        Return the free space of the volume for this process, in bytes.
        """
        return free_bytes(self.fd)

    def holds(self, path: str, content: Content) -> bool:
        """
        Whether the file on disk has the content already, according to its MD5 or SHA-256.
        """
        found = stat_in(path, self.fd)
        if found is None or found.st_size != content.size_bytes:
            return False
        if Held("", found.st_size, found.st_mtime_ns, found.st_ino, self._mode_of(content)).matches(
            found
        ):
            with suppress(OSError), walk(self.fd, path) as (folder, name):
                fd = os.open(name, OLD_FILE, dir_fd=folder)
                try:
                    return has_digest(content.etag, read_blocks(fd))
                finally:
                    os.close(fd)
        return False

    # --- changing

    def adopt(self, path: str, content: Content, fence: Fence) -> None:
        """
        List a file that has the content already, and keep its times.
        """
        with fence, walk(self.fd, path) as (folder, name):
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            self._list(path, _held(content, found, is_verified=True))

    def put(
        self,
        path: str,
        content: Content,
        staging: Staging,
        fence: Fence,
        is_wanted: IsWanted,
    ) -> None:
        """
        Rename a complete, verified staging file into place.

        All slow work is done before the fence; inside it, only names change. A crash half-way
        leaves the old file, or the new one, and at most one staging file.

        Raises:
            Blocked: A file of another owner is in the way.
            CycleAbandoned: The fence was revoked.
        """
        found = self.staging.finish(staging, self._next_time(path), self._mode_of(content))
        held = _held(content, found, is_verified=staging.is_verified)
        with fence:
            self._place(path, held, staging.name, self.staging.fd, is_wanted)
            staging.is_placed = True

    def take(self, path: str, other: Folder, fence: Fence) -> None:
        """
        Rename a file of another folder into place.

        Raises:
            Blocked: A file of another owner is in the way.
            CycleAbandoned: The fence was revoked.
        """
        with fence, walk(other.fd, path) as (folder, name):
            self._place(path, other.files[path], name, folder, other.files.__contains__)

    def delete(self, path: str, fence: Fence) -> bool:
        """
        Remove a file, ours or not, and the folders that it leaves empty; False if there was none.
        """
        with fence:
            if held := self.files.get(path):
                self._gone[path] = held.mtime_ns
            try:
                with walk(self.fd, path) as (folder, name):
                    self._remove(path, name, folder)
                is_removed = True
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                is_removed = False  # already gone, or replaced by something else
                self.forget(path)
            self._remove_empty_folders(path)
        return is_removed

    def clear(self, paths: Iterable[str], fence: Fence) -> None:
        """
        Remove files of other owners. One that stays is only logged, once: no consumer needs its
        absence.
        """
        for path in paths:
            try:
                self.delete(path, fence)
            except OSError as error:
                if path not in self._left and len(self._left) < NAMED_FILES:
                    self._left.add(path)
                    log.warning("leftover_kept", name=path, error=error.strerror)

    def forget(self, path: str) -> None:
        """
        Remove a file from the list; the file on disk belongs to another process from now on.
        """
        if self.files.pop(path, None) is not None and self.journal is not None:
            self.journal.remove(path)

    def end_cycle(self, fence: Fence) -> None:
        """
        Compact the journal, and forget deletions whose time a new file can no longer get.
        """
        if self.journal is not None:
            with fence:
                self.journal.compact(self.files)
        now = time.time_ns()
        self._gone = {path: ns for path, ns in self._gone.items() if ns > now - SECOND_NS}

    def follow(self, before: Folder) -> None:
        """
        Give no file a time that a file of the folder before it has, or had until a moment ago.
        """
        self._gone |= before._gone
        self._gone |= {path: held.mtime_ns for path, held in before.files.items()}

    def take_back_modes(self) -> None:
        """
        Take back what a mount with an ``fsGroup`` has added to the modes, as far as the files are
        this user's.
        """
        for path, held in self.files.items():
            with suppress(OSError):
                if os.lstat(path, dir_fd=self.fd).st_mode == held.mode:
                    continue
                fd = os.open(path, OLD_FILE, dir_fd=self.fd)
                try:
                    if held.matches(os.fstat(fd)):
                        os.fchmod(fd, stat.S_IMODE(held.mode))
                finally:
                    os.close(fd)

    # --- inside

    def _mode_of(self, content: Content) -> int:
        """
        Return the mode of a file; an executable file is executable for everyone who can read it.
        """
        mode = self.staging.file_mode
        mode |= (mode & 0o444) >> 2 if is_executable(content.etag) else 0
        return stat.S_IFREG | mode

    def _next_time(self, path: str) -> int:
        """
        Return the current time, or the next full second after the predecessor's if that is later.

        Python's bytecode cache and Airflow's file processor compare whole seconds and sizes.
        """
        before, held = stat_in(path, self.fd), self.files.get(path)
        predecessors = [self._gone.get(path, 0)]
        predecessors += [held.mtime_ns] if held is not None else []
        predecessors += [before.st_mtime_ns] if before is not None else []
        earliest = (max(predecessors) // SECOND_NS + 1) * SECOND_NS
        return max(time.time_ns(), earliest)

    def _place(self, path: str, held: Held, name: str, source: int, is_wanted: IsWanted) -> None:
        folder, last = self._open_parent(path, is_wanted)
        try:
            self._make_way(path, folder, last, is_wanted)
            before = self.files.get(path)
            self._list(path, held)
            try:
                os.rename(name, last, src_dir_fd=source, dst_dir_fd=folder)
            except OSError:
                self._unlist(path, before)
                raise
            if self.staging.fsync:
                sync_folder(folder)
        finally:
            if folder != self.fd:
                os.close(folder)

    def _list(self, path: str, held: Held) -> None:
        if self.journal is not None:
            self.journal.add(path, held)
        self.files[path] = held

    def _unlist(self, path: str, before: Held | None) -> None:
        if self.journal is not None:
            self.journal.undo(path, before)
        if before is None:
            self.files.pop(path, None)
        else:
            self.files[path] = before

    def _open_parent(self, path: str, is_wanted: IsWanted) -> tuple[int, str]:
        """
        Return the open parent folder of a path, which the caller closes unless it is the folder
        itself, and the last name; create missing folders.

        Raises:
            Blocked: A file of another owner is in place of a folder.
        """
        *folders, name = split(path)
        fd = self.fd
        for depth, folder in enumerate(folders, 1):
            try:
                try:
                    inner = os.open(folder, PATH_FLAGS, dir_fd=fd)
                except (FileNotFoundError, NotADirectoryError):
                    self._make_folder("/".join(folders[:depth]), folder, fd, is_wanted)
                    inner = os.open(folder, PATH_FLAGS, dir_fd=fd)
            finally:
                if fd != self.fd:
                    os.close(fd)
            fd = inner
        return fd, name

    def _make_folder(self, path: str, name: str, fd: int, is_wanted: IsWanted) -> None:
        """
        Create one folder; remove a symlink, or a file of ours whose key is gone, in its place.
        """
        found = stat_in(name, fd)
        if found is not None:
            if stat.S_ISLNK(found.st_mode):
                log.warning("symlink_replaced", path=path)
            elif path not in self.files or is_wanted(path):
                raise Blocked
            self._remove(path, name, fd)
        os.mkdir(name, FOLDER_MODE, dir_fd=fd)

    def _make_way(self, path: str, folder: int, name: str, is_wanted: IsWanted) -> None:
        """
        Remove a folder that is in place of a file, unless it contains files of other owners.

        Bytecode is removed with it, because its sources are gone from the bucket.
        """
        found = stat_in(name, folder)
        if found is None:
            return
        if stat.S_ISLNK(found.st_mode):
            log.warning("symlink_replaced", path=path)
        if not stat.S_ISDIR(found.st_mode):
            return
        for inside in self._removable(path, folder, name, is_wanted):
            with walk(self.fd, inside) as (inner, last):
                self._remove(inside, last, inner)
        for _, folders, _, inner in os.fwalk(name, topdown=False, dir_fd=folder):
            for empty in folders:
                os.rmdir(empty, dir_fd=inner)
        os.rmdir(name, dir_fd=folder)

    def _removable(self, path: str, folder: int, name: str, is_wanted: IsWanted) -> list[str]:
        """
        Return the files to remove from a folder that is in the way.

        Raises:
            Blocked: One of them is foreign, or the folder is deeper than our files can be.
        """
        files = []
        for inner, folders, names, inner_fd in os.fwalk(name, dir_fd=folder):
            here = os.path.normpath(os.path.join(os.path.dirname(path), inner))
            is_bytecode = BYTECODE in here.split("/")
            for file in names:
                inside = f"{here}/{file}"
                is_ours = inside in self.files and not is_wanted(inside)
                if not (is_ours or is_bytecode):
                    raise Blocked
                files.append(inside)
            is_deep = here.count("/") >= DEPTH_LIMIT
            if is_deep or any(is_link(inner_name, inner_fd) for inner_name in folders):
                raise Blocked
        return files

    def _remove(self, path: str, name: str, folder: int) -> None:
        held = self.files.get(path)
        self.forget(path)
        try:
            os.unlink(name, dir_fd=folder)
        except OSError:
            if held is not None:
                self._unlist(path, held)
            raise

    def _remove_empty_folders(self, path: str) -> None:
        while "/" in path:
            path = path.rpartition("/")[0]
            try:
                with walk(self.fd, path) as (folder, name):
                    os.rmdir(name, dir_fd=folder)
            except OSError:
                return  # not empty, or gone


def _held(content: Content, found: os.stat_result, *, is_verified: bool) -> Held:
    same_size = content.size_bytes == found.st_size
    return Held(
        content.etag,
        content.size_bytes if same_size else found.st_size,
        found.st_mtime_ns,
        found.st_ino,
        found.st_mode,
        is_verified,
    )
