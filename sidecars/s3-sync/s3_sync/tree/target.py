"""
The target folder: makes every change in it, and none outside it.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, suppress
from functools import cache

from s3_sync.digest import Content, has_digest, is_executable, md5_of
from s3_sync.keys import RESERVED
from s3_sync.tree.damage import damaged
from s3_sync.tree.dates import SECOND_NS, Dates
from s3_sync.tree.download import Download
from s3_sync.tree.journal import Managed, ManagedList, is_mode
from s3_sync.tree.parts import list_name, open_part
from s3_sync.tree.staging import Staged, Staging, StagingFolder, staging_name
from s3_sync.tree.volume import Volume, foreign_files, read_blocks, sync_folder
from s3_sync.tree.walk import Walk, Wanted, Way
from sidecar_runtime.fence import Fence
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.errors import TargetError
from sidecar_runtime.volume.files import free_bytes, stat_in
from sidecar_runtime.volume.trees import link_file

NAMED_FILES = 50
_OLD_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

log = get_logger("target")


class Torn(Exception):
    """
    A file differs from its list: it was changed since it was inspected.
    """


class Target:
    """
    One folder that is kept file by file, with the list of its files; publishes under a fence.

    It is the target folder itself, or a part of `.s3-sync` that a layout makes visible.

    Args:
        part: Path of the part in `.s3-sync`; empty for the target folder.
        files: The files in it; None: read them from the list.

    Raises:
        OSError: From every method, if the file system fails; published files stay.
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
        # Foreign files that the log has named: each cycle tries again to delete them.
        self._named: set[str] = set()
        self.staging = StagingFolder(volume.staging, file_mode=file_mode, fsync=volume.fsync)
        with ExitStack() as stack:
            above, self.folder = open_part(part, volume, stack)
            self.managed = ManagedList(
                above,
                self.folder,
                fsync=volume.fsync,
                name=list_name(part),
                files=files,
                is_shared=not part,
            )
            stack.callback(self.managed.close)
            self._walk = Walk(self.folder, self.managed)
            self._dates = Dates(self.managed)
            self._open = stack.pop_all()

    def close(self) -> None:
        """
        Close all open folders and files.
        """
        self._open.close()

    # --- looking

    def free_bytes(self) -> float:
        """
        Return the free space of the volume for this process, in bytes.
        """
        return free_bytes(self.folder)

    def damaged(self, paths: Iterator[str]) -> set[str]:
        """
        Return the managed paths whose files on disk differ from what was published.
        """
        return damaged(self.managed.files, paths, self.folder)

    def take_back_modes(self) -> None:
        """
        Take back what a mount with an ``fsGroup`` has added to the modes, as far as the files are
        this user's.
        """
        for path, held in self.managed.files.items():
            with suppress(OSError):
                found = os.lstat(path, dir_fd=self.folder)
                if found.st_mode == held.mode:
                    continue
                fd = os.open(path, _OLD_FILE, dir_fd=self.folder)
                try:
                    if held.matches(os.fstat(fd)):
                        os.fchmod(fd, stat.S_IMODE(held.mode))
                finally:
                    os.close(fd)

    def is_bare(self) -> bool:
        """
        Whether the folder is empty except for `.s3-sync`.
        """
        with os.scandir(self.folder) as found:
            return all(one.name == RESERVED for one in found)

    def foreign(self) -> list[str]:
        """
        Return all files and links that are not managed, except bytecode and lost+found.
        """
        return foreign_files(self.folder, self.managed.files)

    def holds(self, path: str, content: Content) -> bool:
        """
        Whether the file on disk already has the content, according to MD5 or SHA-256.
        """
        etag = content.etag
        return self._holds(
            stat_in(path, self.folder), path, content, lambda blocks: has_digest(etag, blocks)
        )

    def is_blocked(self, path: str, wanted: Wanted) -> bool:
        """
        Whether a foreign file blocks a path; changes nothing.
        """
        return self._walk.is_blocked(path, wanted)

    # --- publishing

    def adopt(self, path: str, content: Content, fence: Fence, *, is_verified: bool = True) -> None:
        """
        Record a file that already has the content, and keep its times.
        """
        with fence, self._walk.to(path) as (folder, name):
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            self.managed.add(path, _managed(content, found, is_verified=is_verified))

    def stage(self, path: str, content: Content, staging: Staging) -> Staged:
        """
        Close a complete staging file with its final mode and time.
        """
        before = stat_in(path, self.folder)
        return self._stage(path, content, staging, before, is_verified=True)

    def along(self, wanted: Wanted) -> AbstractContextManager[Way]:
        """
        Return the way for :meth:`put` to many paths; missing folders are created.
        """
        return self._walk.along(wanted)

    def put(self, staged: Staged, way: Way, fence: Fence, wanted: Wanted) -> None:
        """
        Rename a staged file into place; with a new date if it has waited for other files.

        A crash half-way leaves the old file, or the new one, and at most one staging file.

        Raises:
            Blocked: A foreign file is in the way.
            CycleAbandoned: The fence was revoked.
        """
        if staged.managed.mtime_ns < time.time_ns() - SECOND_NS:
            staged = staged._replace(managed=self.staging.redate(staged))
        with fence:
            self._place(staged, *way(staged.path), wanted)

    def publish(
        self,
        path: str,
        content: Content,
        download: Download,
        fence: Fence,
        wanted: Wanted,
    ) -> bool:
        """
        Rename a verified download into place; False if the file already has the content.

        All slow work is done before the fence; inside it, only names change.
        A crash half-way leaves the old file, or the new one, and at most one staging file.

        Args:
            wanted: Whether a path is wanted; managed files that are not may be removed.

        Raises:
            Blocked: A foreign file is in the way.
            CycleAbandoned: The fence was revoked.
        """
        before = stat_in(path, self.folder)
        if self._holds(before, path, content, lambda blocks: md5_of(blocks) == download.md5()):
            self.adopt(path, content, fence, is_verified=download.is_verified)
            return False
        staging = download.staging or self.staging.fill(download.blocks())
        try:
            staged = self._stage(path, content, staging, before, is_verified=download.is_verified)
            with fence, self._walk.to(path, making_way=wanted) as (folder, name):
                self._place(staged, folder, name, wanted)
            staging.is_published = True
        finally:
            self.staging.discard(staging)
        return True

    def take(self, path: str, source: Target, fence: Fence, wanted: Wanted) -> None:
        """
        Put a file of another target into place, as a hard link or as a copy.

        A crash half-way leaves the old file, or the new one, and at most one staging file.

        Raises:
            Torn: The file differs from that target's list.
            Blocked: A foreign file is in the way.
            CycleAbandoned: The fence was revoked.
        """
        held = source.managed.files[path]
        staged = staging_name()
        try:
            with source._walk.to(path) as (folder, name):
                link_file(name, folder, staged, self.staging.fd)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise Torn(path) from error
        try:
            taken = held.of(os.stat(staged, dir_fd=self.staging.fd, follow_symlinks=False))
            if taken is None:
                raise Torn(path)
            with fence, self._walk.to(path, making_way=wanted) as (folder, name):
                self._walk.make_way(path, folder, name, wanted)
                self._rename(staged, folder, name, path, taken)
        finally:
            with suppress(FileNotFoundError):  # renaming a link over itself leaves both
                os.unlink(staged, dir_fd=self.staging.fd)

    def delete(self, path: str, fence: Fence) -> bool:
        """
        Remove a file and the folders that it leaves empty; False if it did not exist.
        """
        with fence:
            if held := self.managed.files.get(path):
                self._dates.note_gone(path, held.mtime_ns)
            try:
                with self._walk.to(path) as (folder, name):
                    self._walk.remove(path, name, folder)
                is_removed = True
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                is_removed = False  # already gone, or replaced by something else
                self.managed.remove(path)
            self._walk.remove_empty_folders(path)
        return is_removed

    def tell_kept(self, path: str, error: OSError) -> None:
        """
        Log once that a foreign file cannot be deleted.
        """
        if path in self._named or len(self._named) > NAMED_FILES:
            return
        self._named.add(path)
        name = path if len(self._named) <= NAMED_FILES else f"more than {NAMED_FILES} files"
        log.warning("leftover_kept", name=name, error=error.strerror)

    def forget(self, path: str, fence: Fence) -> None:
        """
        Remove a file from the list; the file on disk is foreign from now on.
        """
        with fence:
            self.managed.remove(path)

    def end_cycle(self, fence: Fence) -> None:
        """
        Compact the list of managed files, and forget past deletions.
        """
        with fence:
            self.managed.compact()
        self._dates.forget_past()

    # --- inside

    def _mode_of(self, content: Content) -> int:
        """
        Return the mode of a file; an executable file is executable for everyone who can read it.
        """
        mode = self._file_mode
        return mode | (mode & 0o444) >> 2 if is_executable(content.etag) else mode

    def _stage(
        self,
        path: str,
        content: Content,
        staging: Staging,
        before: os.stat_result | None,
        *,
        is_verified: bool,
    ) -> Staged:
        found = self.staging.finish(staging, self._dates.next(path, before), self._mode_of(content))
        managed = _managed(content, found, is_verified=is_verified)
        return Staged(path, staging.name, managed, before is not None)

    def _place(self, staged: Staged, folder: int, name: str, wanted: Wanted) -> None:
        if staged.replaces:
            self._walk.make_way(staged.path, folder, name, wanted)
        self._rename(staged.name, folder, name, staged.path, staged.managed)

    def _rename(self, staged: str, folder: int, name: str, path: str, new: Managed) -> None:
        before = self.managed.files.get(path)
        self.managed.add(path, new)
        try:
            os.rename(staged, name, src_dir_fd=self.staging.fd, dst_dir_fd=folder)
        except OSError:
            if before is None:
                self.managed.remove(path)
            else:
                self.managed.restore(path, before)
            raise
        if self._fsync:
            sync_folder(folder)

    def _holds(
        self,
        found: os.stat_result | None,
        path: str,
        content: Content,
        is_same: Callable[[Iterator[bytes]], bool],
    ) -> bool:
        """
        Whether the file found has the expected mode, size and content.
        """
        if found is None or found.st_size != content.size_bytes:
            return False
        if not is_mode(found, stat.S_IFREG | self._mode_of(content)):
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


def changed_by_others(torn: Torn) -> TargetError:
    """
    Return the error for a file that differs from its list.
    """
    return TargetError(
        "target_failed",
        f"another process changed {torn.args[0]!r} in .s3-sync before it was published",
        "The published files stay. Find the process that writes to .s3-sync; only s3-sync should.",
    )


_mode = cache(int)
"""One int object for all files of a mode: there may be very many files."""


def _managed(content: Content, found: os.stat_result, *, is_verified: bool) -> Managed:
    same_size = content.size_bytes == found.st_size
    return Managed(
        content.etag,
        content.size_bytes if same_size else found.st_size,
        found.st_mtime_ns,
        found.st_ino,
        _mode(found.st_mode),
        is_verified,
    )
