"""
The way to a path below the target, and what is in it.

A path is walked from the open target, folder by folder, without following a symlink; what is
done at its end is done inside the folder that was walked to. So nobody who can write to the
volume can lead us out of it, at whatever moment.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from s3_sync.tree.managed import ManagedList
from s3_sync.tree.volume import BYTECODE, FOLDER_FLAGS, is_link
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.trees import FOLDER_MODE

Wanted = Callable[[str], bool]
# From a path to the open folder that it lies in, and its name there.
Way = Callable[[str], tuple[int, str]]

_STEPS_ASIDE = {"", ".", ".."}

log = get_logger("target")


class Blocked(Exception):
    """
    A file or folder of another owner is where ours should be.
    """


class Walk:
    """
    Walks below one open target.

    Args:
        root: The open target.
        managed: Which of all that it meets are ours.
    """

    def __init__(self, root: int, managed: ManagedList) -> None:
        self._root = root
        self._managed = managed

    @contextmanager
    def to(self, path: str, *, making_way: Wanted | None = None) -> Iterator[tuple[int, str]]:
        """
        Walk to the folder of a path and yield it, open, with the last name.

        Args:
            making_way: Make missing folders; whether a path is wanted, because what is not may
                make way. None: change nothing.

        Raises:
            FileNotFoundError, NotADirectoryError: It is not there, and nothing may be made.
            Blocked: Someone else's file is where a folder should be.
        """
        *folders, name = parts = path.split("/")
        if not _STEPS_ASIDE.isdisjoint(parts):  # refused long before; this is the last door
            raise ValueError(f"not a path below the target: {path!r}")
        root = fd = self._root
        try:
            for depth, folder in enumerate(folders, 1):
                try:
                    inner = os.open(folder, FOLDER_FLAGS, dir_fd=fd)
                except (FileNotFoundError, NotADirectoryError):
                    if making_way is None:
                        raise
                    self._make_folder("/".join(folders[:depth]), folder, fd, making_way)
                    inner = os.open(folder, FOLDER_FLAGS, dir_fd=fd)
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
        Yield a way to many paths that stays in a folder while it is the same.

        Raises:
            Blocked: From the way: someone else's file is where a folder should be.
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
        Whether something that is not ours is in the way of a path; changes nothing.
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
        Remove a folder that is where our file should be, if nothing in it is anybody's.

        Bytecode goes with it: the folder's sources are gone from the bucket.
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
        Remove one file, ours or one that must make way.
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
        Make one folder; a symlink, or a file of ours whose key is gone, makes way.
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
        Return the files in a folder that must make way.

        Raises:
            Blocked: One of them is someone else's.
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
            if any(is_link(inner_name, inner_fd) for inner_name in folders):
                raise Blocked
        return files
