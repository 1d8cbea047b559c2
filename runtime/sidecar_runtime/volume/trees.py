"""
Removes trees in open folders, or links them file by file; no symlink is followed.
"""

import errno
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import groupby

from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.files import NEW_FILE, set_mode, stat_in

FOLDER_MODE = 0o775
FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# A hard link is impossible: protected_hardlinks, a file system without hard links, too many links
# to the file, another mount. https://docs.kernel.org/admin-guide/sysctl/fs.html#protected-hardlinks
NO_LINK = {errno.EPERM, errno.EMLINK, errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS}
_OLD_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

log = get_logger("snapshots")


@contextmanager
def opened(name: str, dir_fd: int | None = None, flags: int = FOLDER_FLAGS) -> Iterator[int]:
    """
    Open a folder, or a file with other flags, and close it afterwards.
    """
    fd = os.open(name, flags, dir_fd=dir_fd)
    try:
        yield fd
    finally:
        os.close(fd)


def remove_tree(name: str, folder: int) -> None:
    """
    Remove a file or a whole folder in an open folder, if it exists.

    Content that cannot be removed (a bytecode folder of another user) stays and is logged.

    Raises:
        OSError: A file cannot be removed.
    """
    found = stat_in(name, folder)
    if found is None:
        return
    if not stat.S_ISDIR(found.st_mode):
        os.unlink(name, dir_fd=folder)
        return
    shutil.rmtree(name, ignore_errors=True, dir_fd=folder)
    if stat_in(name, folder):
        log.warning("leftover_kept", name=name)


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
    for folder, inside in groupby(sorted(paths, key=os.path.dirname), os.path.dirname):
        with _entered(folder, source, target, fsync=fsync) as (from_folder, to_folder):
            for path in inside:
                name = os.path.basename(path)
                link_file(name, from_folder, name, to_folder)
                yield path, os.stat(name, dir_fd=to_folder, follow_symlinks=False)


@contextmanager
def _entered(path: str, source: int, target: int, *, fsync: bool) -> Iterator[tuple[int, int]]:
    """
    Open a folder of the source, and create and open the same folder in the target; at the end,
    flush it and those above it.
    """
    targets = [target]
    with ExitStack() as opened:
        for folder in path.split("/") if path else []:
            source = os.open(folder, FOLDER_FLAGS, dir_fd=source)
            opened.callback(os.close, source)
            with suppress(FileExistsError):
                os.mkdir(folder, FOLDER_MODE, dir_fd=targets[-1])
            targets.append(os.open(folder, FOLDER_FLAGS, dir_fd=targets[-1]))
            opened.callback(os.close, targets[-1])
        yield source, targets[-1]
        for made in reversed(targets) if fsync else ():
            os.fsync(made)


def link_file(source: str, source_folder: int, target: str, target_folder: int) -> None:
    """
    Create a hard link, or a copy with the same mode and time if that is impossible; a symlink is
    not followed.

    Raises:
        FileNotFoundError: The source is missing, or neither a regular file nor a symlink.
        OSError: The target exists, or the disk is full.
    """
    try:
        places = {"src_dir_fd": source_folder, "dst_dir_fd": target_folder}
        os.link(source, target, **places, follow_symlinks=False)
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
    fd = os.open(source, _OLD_FILE, dir_fd=source_folder)
    with open(fd, "rb") as original:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise FileNotFoundError(errno.ENOENT, "not a regular file", source)
        mode = stat.S_IMODE(found.st_mode)
        with open(os.open(target, NEW_FILE, mode, dir_fd=target_folder), "wb") as copy:
            shutil.copyfileobj(original, copy)
            copy.flush()
            set_mode(copy.fileno(), mode)
            os.utime(copy.fileno(), ns=(found.st_mtime_ns, found.st_mtime_ns))
            os.fsync(copy.fileno())  # unconditional, because copies are rare
