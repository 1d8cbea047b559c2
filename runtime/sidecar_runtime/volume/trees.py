"""
Removes trees in open folders, or links them file by file; no symlink is followed.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.files import set_mode

FOLDER_MODE = 0o775
FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# A hard link is impossible: protected_hardlinks, a file system without hard links, too many links
# to the file, another mount. https://docs.kernel.org/admin-guide/sysctl/fs.html#protected-hardlinks
NO_LINK = {errno.EPERM, errno.EMLINK, errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS}
_OLD_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

log = get_logger("snapshots")


def remove_tree(name: str, folder: int) -> None:
    """
    Remove a file or a whole folder in an open folder, if it exists.

    Content that cannot be removed (a bytecode folder of another user) stays and is logged.

    Raises:
        OSError: A file cannot be removed.
    """
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(found.st_mode):
        os.unlink(name, dir_fd=folder)
        return

    import shutil  # noqa: PLC0415 - 5 ms, and a start in an empty folder has nothing to remove

    def keep(_: object, path: str, why: BaseException | tuple[Any, BaseException, Any]) -> None:
        error = why[1] if isinstance(why, tuple) else why
        if not isinstance(error, FileNotFoundError):
            log.warning("leftover_kept", name=path, error=str(error))

    if sys.version_info >= (3, 12):
        shutil.rmtree(name, dir_fd=folder, onexc=keep)
    else:
        shutil.rmtree(name, dir_fd=folder, onerror=keep)


def link_tree(
    source: int, target: int, paths: Iterable[str], *, fsync: bool
) -> Iterator[tuple[str, os.stat_result]]:
    """
    Link files of an open folder into another, which has none of them; copy those that cannot be
    hard-linked.

    Yields:
        Each path with the lstat result of the new file. The source may have changed since it was
        inspected: the caller compares.

    Raises:
        OSError: A file is missing, or the disk is full; files created so far stay.
    """
    here, inside = "", list[str]()
    pairs = [(source, target)]
    try:
        # In sorted order each folder is opened only once.
        for path in sorted(paths):
            folder, _, name = path.rpartition("/")
            if folder != here:
                here, folders = folder, folder.split("/") if folder else []
                while inside != folders[: len(inside)]:
                    inside.pop()
                    _close(pairs.pop(), fsync)
                for inner in folders[len(inside) :]:
                    pairs.append(_enter(inner, *pairs[-1]))
                    inside.append(inner)
            from_folder, to_folder = pairs[-1]
            link_file(name, from_folder, name, to_folder)
            yield path, os.stat(name, dir_fd=to_folder, follow_symlinks=False)
    finally:
        while len(pairs) > 1:
            _close(pairs.pop(), fsync)
    if fsync:
        os.fsync(target)


def _enter(folder: str, source: int, target: int) -> tuple[int, int]:
    """
    Open a folder of the source; create and open the same folder in the target.
    """
    inner_source = os.open(folder, FOLDER_FLAGS, dir_fd=source)
    try:
        with suppress(FileExistsError):
            os.mkdir(folder, FOLDER_MODE, dir_fd=target)
        return inner_source, os.open(folder, FOLDER_FLAGS, dir_fd=target)
    except OSError:
        os.close(inner_source)
        raise


def _close(pair: tuple[int, int], fsync: bool) -> None:
    source, target = pair
    os.close(source)
    try:
        if fsync:
            os.fsync(target)
    finally:
        os.close(target)


def link_file(source: str, source_folder: int, target: str, target_folder: int) -> None:
    """
    Create a hard link, or a copy with the same mode and time if that is impossible; a symlink is
    not followed.

    Raises:
        FileNotFoundError: The source is missing, or neither a regular file nor a symlink.
        OSError: The target exists, or the disk is full.
    """
    try:
        os.link(
            source,
            target,
            src_dir_fd=source_folder,
            dst_dir_fd=target_folder,
            follow_symlinks=False,
        )
    except OSError as error:
        if error.errno not in NO_LINK:
            raise
        try:
            leads_to = os.readlink(source, dir_fd=source_folder)
        except OSError:  # not a symlink
            _copy_file(source, source_folder, target, target_folder)
        else:
            os.symlink(leads_to, target, dir_fd=target_folder)


def _copy_file(source: str, source_folder: int, target: str, target_folder: int) -> None:
    from shutil import copyfileobj  # noqa: PLC0415

    fd = os.open(source, _OLD_FILE, dir_fd=source_folder)
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        os.close(fd)
        raise FileNotFoundError(errno.ENOENT, "not a regular file", source)
    mode = stat.S_IMODE(found.st_mode)
    with (
        open(fd, "rb") as original,
        open(os.open(target, _NEW_FILE, mode, dir_fd=target_folder), "wb") as copy,
    ):
        copyfileobj(original, copy)
        copy.flush()
        set_mode(copy.fileno(), mode)
        os.utime(copy.fileno(), ns=(found.st_mtime_ns, found.st_mtime_ns))
        os.fsync(copy.fileno())  # unconditional, because copies are rare
