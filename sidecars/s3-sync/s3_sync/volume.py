"""
The volume: the open target, `.s3-sync` in it, and its staging folder; and walks below
the target that follow no link.

A path is walked from an open folder, name by name. Changes at its end are made relative
to the folder that was opened. So a process that can write to the volume can never
redirect s3-sync out of the target.
"""

from __future__ import annotations

import itertools
import os
import stat
import time
import unicodedata
from collections.abc import Callable, Container, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import NamedTuple

from s3_sync.names import DEPTH_LIMIT, RESERVED
from s3_sync.reasons import REASONS
from sidecar_runtime.volume.files import (
    TargetError,
    TargetLock,
    is_at,
    read_holder,
    set_mode,
    stat_in,
    write_file,
)
from sidecar_runtime.volume.own import own_folder
from sidecar_runtime.volume.snapshots import FOLDER_MODE, opened, remove_tree

LOCK = "lock"
STAGING = "staging"
SNAPSHOTS = "snapshots"
LINK = "current"
AIRFLOWIGNORE = ".airflowignore"
# Plain names mean the same in both of its syntaxes, glob and regular expression.
_HIDDEN = f"{STAGING}\n{SNAPSHOTS}\n".encode()

_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# The target's own path may be a symlink, which the user chose.
TARGET_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_PATH_FLAGS = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Bytecode is deleted with the sources that it belongs to.
SPARED = ("__pycache__",)
# A larger buffer takes longer to allocate, for each of many small files, than to read.
BLOCK_BYTES = 16 << 10
# How long a file waits for the next full second, and how far the kernel's time of files
# may be behind the clock (a tick has 10 ms at most).
LONGEST_WAIT_SECONDS = 1.1
TICK_SECONDS = 0.02

# One counter for the process: two open volumes may be the same folder.
_NUMBERS = itertools.count()


class Blocked(TargetError):
    """
    A file or folder of another owner is in the way of a path.
    """

    def __init__(self, path: str) -> None:
        super().__init__(
            "blocked",
            f"what is in the way of {path!r} is not a file of s3-sync",
            REASONS["blocked"].advice,
        )


class Occupied(Exception):
    """
    Another process has the lock of a target: the text says which.
    """


class Volume:
    """
    The target folder and its `.s3-sync`, open; belongs to one thread.

    Attributes:
        root: The target folder.
        state: `.s3-sync` in it.
        staging: Files in it are renamed into place or removed; see :meth:`begin`.
        fold: What the file system takes names for; None if it distinguishes all of
            them.

    Raises:
        OSError: From every method, if the file system fails.
    """

    staging: StagingFolder
    fold: Callable[[str], str] | None

    def __init__(self, path: str) -> None:
        self.path = path
        with suppress(FileExistsError):  # what is there is told as it is opened
            os.makedirs(path, mode=FOLDER_MODE)
        with ExitStack() as stack:
            self.root = stack.enter_context(opened(path, flags=TARGET_FLAGS))
            self.state = stack.enter_context(own_folder(RESERVED, self.root))
            self._open = stack.pop_all()

    def begin(self, file_mode: int, *, fsync: bool) -> None:
        """
        Begin to write, now that this process has the lock: open staging, and remove
        what killed processes and earlier versions left.
        """
        for name in (STAGING, "tree"):  # that of versions before 0.3
            remove_tree(name, self.state)
        staging = self._open.enter_context(own_folder(STAGING, self.state))
        self.staging = StagingFolder(staging, file_mode, fsync)
        # Airflow's folder walk includes hidden folders. A full disk must not prevent
        # the start.
        with suppress(OSError):
            write_file(AIRFLOWIGNORE, _HIDDEN, 0o664, fsync=False, dir_fd=self.state)
        self.fold = fold if is_folding(staging) else None

    def is_current(self) -> bool:
        """
        Whether the open folders are still at their paths: the target, or `.s3-sync`,
        may have been removed and created again.
        """
        with suppress(OSError):
            return (
                os.path.samestat(os.stat(self.path), os.fstat(self.root))
                and is_at(RESERVED, self.root, self.state)
                and is_at(STAGING, self.state, self.staging.fd)
            )
        return False

    def close(self) -> None:
        """
        Close all open folders.
        """
        self._open.close()


def fold(path: str) -> str:
    """
    Return what a file system takes a name for that ignores case or Unicode's normal
    forms.
    """
    return unicodedata.normalize("NFC", path).casefold()


def is_folding(folder: int) -> bool:
    """
    Whether a file system ignores case or Unicode's normal forms; False if it is full.
    """
    name = f"folding-{os.getpid()}-\u00c9"  # É in one character
    is_found = False
    with suppress(OSError):
        os.close(os.open(name, _NEW_FILE, 0o600, dir_fd=folder))
        # One of them differs in ASCII letters only: some file systems fold just those.
        others = (name.upper(), name.lower(), unicodedata.normalize("NFD", name))
        is_found = any(stat_in(other, folder) is not None for other in others)
        os.unlink(name, dir_fd=folder)
    return is_found


def open_volume(path: str, lock: TargetLock, file_mode: int, *, fsync: bool) -> Volume:
    """
    Open a target, lock it, and begin to write there.

    Raises:
        Occupied: Another process has the lock.
        OSError: It cannot be opened or written.
    """
    volume = Volume(path)
    try:
        if not lock.try_acquire(LOCK, volume.state):
            raise Occupied(read_holder(LOCK, volume.state))
        volume.begin(file_mode, fsync=fsync)
    except BaseException:
        volume.close()
        raise
    return volume


# --- walks


@contextmanager
def walk(
    root: int, path: str, make: Callable[[str, str, int], None] | None = None
) -> Iterator[tuple[int, str]]:
    """
    Walk to the parent folder of a path and yield it, open, with the last name.

    Args:
        make: Called where a folder is missing, or something else is there: with its
            path, its name, and the open folder above it.

    Raises:
        FileNotFoundError, NotADirectoryError: A folder is missing, or something else is
            there.
        ValueError: The path leads elsewhere; a last safeguard, because such keys are
            refused earlier.
    """
    *folders, name = path.split("/")
    if not {"", ".", ".."}.isdisjoint((*folders, name)):
        raise ValueError(f"not a path below the target: {path!r}")
    fds = [root]
    try:
        for folder in folders:
            try:
                inner = os.open(folder, _PATH_FLAGS, dir_fd=fds[-1])
            except (FileNotFoundError, NotADirectoryError):
                if make is None:
                    raise
                make("/".join(folders[: len(fds)]), folder, fds[-1])
                inner = os.open(folder, _PATH_FLAGS, dir_fd=fds[-1])
            fds.append(inner)
        yield fds[-1], name
    finally:
        for fd in fds[1:]:
            os.close(fd)


def is_link(name: str, folder: int) -> bool:
    """
    Whether a name in an open folder is a symlink.
    """
    found = stat_in(name, folder)
    return found is not None and stat.S_ISLNK(found.st_mode)


def foreign_files(
    fd: int, ours: Container[str], spared: Container[str] = SPARED
) -> Iterator[str]:
    """
    Yield all files, links and folders that are too deep for our files, below an open
    folder, that are not ours.

    Args:
        spared: Folders of these names are left out.
    """
    for folder, folders, files, folder_fd in os.fwalk(dir_fd=fd):
        here = os.path.normpath(folder)
        folders[:] = [name for name in folders if name not in spared]
        # What is not walked: links, and folders that are too deep.
        ends = [name for name in folders if is_link(name, folder_fd)]
        if here.count("/") >= DEPTH_LIMIT:
            ends = folders[:]
            folders.clear()
        for name in [*files, *ends]:
            path = os.path.normpath(os.path.join(here, name))
            # NFS renames a file to .nfs* if it is removed but still open.
            if path not in ours and not name.startswith(".nfs"):
                yield path


def read_blocks(fd: int) -> Iterator[bytes]:
    """
    Yield the content of an open file.
    """
    offset = 0
    while block := os.pread(fd, BLOCK_BYTES, offset):
        yield block
        offset += len(block)


# --- staging: each file is completed here before it is renamed into place


@dataclass(slots=True)
class Staging:
    """
    A file in the staging folder.

    Args:
        fd: Its descriptor; -1 once closed.
        name: Its name; empty once it was renamed into place.
        is_verified: Whether a checksum or a digest has verified its content.
    """

    fd: int
    name: str
    is_verified: bool = False

    def close(self) -> None:
        # closed once, even if closing fails (NFS reports quotas then)
        fd = self.fd
        self.fd = -1
        if fd >= 0:
            os.close(fd)


class StagingFolder(NamedTuple):
    """
    Creates and completes the staging files of one target.

    Args:
        fd: The open folder; belongs to the caller.
        file_mode: The mode of new files.

    Raises:
        OSError: From every method, if the file system fails.
    """

    fd: int
    file_mode: int
    fsync: bool

    def open(self) -> Staging:
        """
        Open a new file, which must be renamed into place or discarded.
        """
        name = f"{os.getpid()}-{next(_NUMBERS)}.part"
        return Staging(os.open(name, _NEW_FILE, self.file_mode, dir_fd=self.fd), name)

    def finish(self, staging: Staging, mtime_ns: int, mode: int) -> os.stat_result:
        """
        Set the mode and time of a complete file, close it, and return its stat result.

        The time is set even if it is the current one: on NFS the server otherwise sets
        it after the close, so that it differs from the recorded time. Where files
        belong to somebody else (SMB with `uid=`, bindfs), only the server's current
        time can be had, so a later one is waited for, if that takes a moment.
        """
        try:
            os.utime(staging.fd, ns=(mtime_ns, mtime_ns))
        except PermissionError:
            left_seconds = (mtime_ns - time.time_ns()) / 1e9 + TICK_SECONDS
            time.sleep(min(max(0.0, left_seconds), LONGEST_WAIT_SECONDS))
            os.utime(staging.fd)
        found = os.fstat(staging.fd)
        if found.st_mode != mode:
            set_mode(staging.fd, stat.S_IMODE(mode))
            found = os.fstat(staging.fd)
        if self.fsync:
            os.fsync(staging.fd)
        staging.close()
        return found

    def discard(self, staging: Staging) -> None:
        """
        Remove a file unless it was renamed into place, and close it.
        """
        staging.close()
        if staging.name:
            with suppress(FileNotFoundError):
                os.unlink(staging.name, dir_fd=self.fd)
