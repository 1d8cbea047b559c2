"""
A sidecar's own folders and files on a volume to which others may write.

All of them are opened step by step, without following a link, so nothing outside the
root is listed, read, written or removed, whatever stands in the root. What is not as the
sidecar makes it is removed: the link, not what it leads to.
"""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import TypeAlias

from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.files import stat_in, write_file
from sidecar_runtime.volume.snapshots import FOLDER_MODE, opened, remove_tree

Opened: TypeAlias = AbstractContextManager[int]

log = get_logger("volume")


@contextmanager
def own_folder(name: str, above: int) -> Iterator[int]:
    """
    Open a folder in an open one, and create it; anything else of its name is removed.

    Raises:
        OSError: It cannot be created or opened.
    """
    clear_way(name, above, stat.S_IFDIR)
    with suppress(FileExistsError):
        os.mkdir(name, FOLDER_MODE, dir_fd=above)
    with opened(name, above) as folder:
        yield folder


def clear_way(name: str, folder: int, kind: int = stat.S_IFREG) -> None:
    """
    Remove what has the name of a file or folder of ours, and is none.
    """
    found = stat_in(name, folder)
    if found and stat.S_IFMT(found.st_mode) != kind:
        log.warning("work_folder_foreign", found=name)
        remove_tree(name, folder)


def write_own(
    name: str, content: bytes, folder: int, *, mode: int = 0o644, fsync: bool = False
) -> int:
    """
    Replace a file of ours, whatever has its name; return the owner that it got.

    Raises:
        OSError: It cannot be written.
    """
    clear_way(name, folder)
    return write_file(name, content, mode, fsync=fsync, dir_fd=folder)


@contextmanager
def folder_of(
    path: str, root: str, opener: Callable[..., Opened] = own_folder
) -> Iterator[int]:
    """
    Open the folder of a path. Only outside the root may links lead there: nobody but
    the operator has made those.

    Args:
        opener: Opens each folder below the root.

    Raises:
        OSError: It cannot be opened.
    """
    above = os.path.dirname(path)
    names = os.path.relpath(above, root).split("/")
    if names[0] == "..":
        root = above
        names = []
    os.makedirs(root, FOLDER_MODE, exist_ok=True)
    with ExitStack() as stack:
        folder = stack.enter_context(opened(os.path.realpath(root)))
        for name in names:
            folder = stack.enter_context(opener(name, folder))
        yield folder


def walk(top: int) -> Iterator[tuple[str, int, str, os.stat_result]]:
    """
    Yield what is below an open folder, folders before their content: the path, the open
    folder that contains it, its name there, and its lstat.

    What vanishes meanwhile is passed over.

    Raises:
        OSError: A folder cannot be read.
    """

    def fail(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    for path, folders, files, folder in os.fwalk(".", onerror=fail, dir_fd=top):
        above = path[2:] and f"{path[2:]}/"
        for name in (*folders, *files):
            found = stat_in(name, folder)
            if found:
                yield above + name, folder, name, found
