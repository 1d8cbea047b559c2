"""
Walks to a path below the target, and handles whatever blocks it.

A path is walked from the open target, folder by folder, without following symlinks. Changes at its
end are made relative to the folder that was opened. So a process that can write to the volume can
never redirect s3-sync out of the target.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from s3_sync.keys import DEPTH_LIMIT
from s3_sync.tree.journal import ManagedList
from s3_sync.tree.volume import BYTECODE, PATH_FLAGS, is_link
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.trees import FOLDER_MODE

Wanted = Callable[[str], bool]
# Maps a path to its open parent folder, and its name there.
Way = Callable[[str], tuple[int, str]]

_STEPS_ASIDE = {"", ".", ".."}

log = get_logger("target")


class Blocked(Exception):
    """
    A file or folder of another owner is in the way.
    """


class Walk:
    """
    Walks below one open target.

    Args:
        root: The open target.
        managed: The files that s3-sync owns.
    """

    def __init__(self, root: int, managed: ManagedList) -> None:
        self._root = root
        self._managed = managed

    @contextmanager
    def to(self, path: str, *, making_way: Wanted | None = None) -> Iterator[tuple[int, str]]:
        """
        Walk to the parent folder of a path and yield it, open, with the last name.

        Args:
            making_way: Create missing folders; tells whether a path is wanted, because managed
                files that are not wanted may be removed. None: change nothing.

        Raises:
            FileNotFoundError, NotADirectoryError: A folder is missing and may not be created.
            Blocked: A foreign file is in place of a folder.
        """
        *folders, name = parts = path.split("/")
        if not _STEPS_ASIDE.isdisjoint(parts):  # a last safeguard: refused earlier
            raise ValueError(f"not a path below the target: {path!r}")
        root = fd = self._root
        try:
            for depth, folder in enumerate(folders, 1):
                try:
                    inner = os.open(folder, PATH_FLAGS, dir_fd=fd)
                except (FileNotFoundError, NotADirectoryError):
                    if making_way is None:
                        raise
                    self._make_folder("/".join(folders[:depth]), folder, fd, making_way)
                    inner = os.open(folder, PATH_FLAGS, dir_fd=fd)
                if fd != root:
                    os.close(fd)
                fd = inner
            yield fd, name
        finally:
            if fd != root:
                os.close(fd)

    @contextmanager
    def along(self, making_way: Wanted) -> Iterator[Way]:
        """
        Yield a way to many paths that keeps the last folder open between paths.

        Raises:
            Blocked: From the way: a foreign file is in place of a folder.
        """
        here, fd = "", os.dup(self._root)

        def way(path: str) -> tuple[int, str]:
            nonlocal here, fd
            folder, _, name = path.rpartition("/")
            if folder != here or name in _STEPS_ASIDE:
                with self.to(path, making_way=making_way) as (inner, _):
                    opened = os.dup(inner)
                os.close(fd)
                here, fd = folder, opened
            return fd, name

        try:
            yield way
        finally:
            os.close(fd)

    def is_blocked(self, path: str, wanted: Wanted) -> bool:
        """
        Whether a foreign file blocks a path; changes nothing.
        """
        parts = path.split("/")
        try:
            for depth in range(1, len(parts)):
                folder = "/".join(parts[:depth])
                found = os.stat(folder, dir_fd=self._root, follow_symlinks=False)
                if stat.S_ISLNK(found.st_mode):
                    return False
                if not stat.S_ISDIR(found.st_mode):
                    return folder not in self._managed.files or wanted(folder)
            with self.to(path) as (inner, name):
                found = os.stat(name, dir_fd=inner, follow_symlinks=False)
                if stat.S_ISDIR(found.st_mode):
                    self._removable(path, inner, name, wanted)
        except FileNotFoundError:
            return False
        except Blocked:
            return True
        return False

    def make_way(self, path: str, folder: int, name: str, wanted: Wanted) -> None:
        """
        Remove a folder that is in place of a file, unless it contains foreign files.

        Bytecode is removed with it, because its sources are gone from the bucket.
        """
        try:
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return
        if stat.S_ISLNK(found.st_mode):
            log.warning("symlink_replaced", path=path)
        if not stat.S_ISDIR(found.st_mode):
            return
        for inside in self._removable(path, folder, name, wanted):
            with self.to(inside) as (inner, last):
                self.remove(inside, last, inner)
        for _, folders, _, inner in os.fwalk(name, topdown=False, dir_fd=folder):
            for empty in folders:
                os.rmdir(empty, dir_fd=inner)
        os.rmdir(name, dir_fd=folder)

    def remove(self, path: str, name: str, folder: int) -> None:
        """
        Remove one file, managed or in the way.
        """
        held = self._managed.files.get(path)
        self._managed.remove(path)
        try:
            os.unlink(name, dir_fd=folder)
        except OSError:
            if held is not None:
                self._managed.restore(path, held)
            raise

    def remove_empty_folders(self, path: str) -> None:
        while "/" in path:
            path = path.rpartition("/")[0]
            try:
                with self.to(path) as (folder, name):
                    os.rmdir(name, dir_fd=folder)
            except OSError:
                return  # not empty, or gone

    def _make_folder(self, path: str, name: str, fd: int, wanted: Wanted) -> None:
        """
        Create one folder; remove a symlink, or a managed file whose key is gone, in its place.
        """
        try:
            found = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            os.mkdir(name, FOLDER_MODE, dir_fd=fd)
            return
        if stat.S_ISLNK(found.st_mode):
            log.warning("symlink_replaced", path=path)
        elif path not in self._managed.files or wanted(path):
            raise Blocked
        self.remove(path, name, fd)
        os.mkdir(name, FOLDER_MODE, dir_fd=fd)

    def _removable(self, path: str, folder: int, name: str, wanted: Wanted) -> list[str]:
        """
        Return the files to remove from a folder that is in the way.

        Raises:
            Blocked: One of them is foreign, or the folder is deeper than managed files can be.
        """
        files = []
        for inner, folders, names, inner_fd in os.fwalk(name, dir_fd=folder):
            here = os.path.normpath(os.path.join(os.path.dirname(path), inner))
            is_bytecode = BYTECODE in here.split("/")
            for file in names:
                inside = f"{here}/{file}"
                is_ours = inside in self._managed.files and not wanted(inside)
                if not (is_ours or is_bytecode):
                    raise Blocked
                files.append(inside)
            is_deep = here.count("/") >= DEPTH_LIMIT
            if is_deep or any(is_link(inner_name, inner_fd) for inner_name in folders):
                raise Blocked
        return files
