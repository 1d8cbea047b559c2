"""
Files that two commits have in common, as one file with several names.

Compared, not believed: equal blobs may be checked out differently (`.gitattributes`), and whoever
can write to the volume may have changed what is shown.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from git_sync_wrapper.published.tree import GIT
from sidecar_runtime.volume.files import stat_in
from sidecar_runtime.volume.trees import FOLDER_FLAGS, NO_LINK

FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
CHUNK_BYTES = 1 << 20
# In the store, where a start sweeps what a crash left.
ASIDE = ".shared"


def share(checkout: int, shown: int, store: int, prefix: str = "") -> Iterator[str]:
    """
    Let the files of a checkout be those of the shown commit, where content and mode are equal.

    Args:
        store: An open folder of the same volume, for a name on the way.

    Yields:
        Each path that is shared now.

    Raises:
        OSError: The disk is full, or fails; the content of the checkout is what it was.
    """
    for name, is_folder in entries(checkout):
        if is_folder:
            with ExitStack() as stack:
                try:
                    inner_shown = stack.enter_context(opened(name, shown))
                except OSError:
                    continue  # nothing like it is there, or it cannot be read
                inner = stack.enter_context(opened(name, checkout))
                yield from share(inner, inner_shown, store, f"{prefix}{name}/")
        elif is_equal(name, checkout, shown) and _link(name, shown, checkout, store):
            yield prefix + name


def entries(folder: int) -> list[tuple[str, bool]]:
    """
    Return the names in an open folder, without git's own, and whether each is a folder.
    """
    with os.scandir(folder) as found:
        return [
            (entry.name, entry.is_dir(follow_symlinks=False))
            for entry in found
            if entry.name != GIT
        ]


@contextmanager
def opened(name: str, above: int | None = None, flags: int = FOLDER_FLAGS) -> Iterator[int]:
    """
    Open a folder, or a file, in an open folder, for as long as it lasts.
    """
    fd = os.open(name, flags, dir_fd=above)
    try:
        yield fd
    finally:
        os.close(fd)


def is_equal(name: str, one: int, other: int) -> bool:
    """
    Whether a name is the same in two open folders: as mode and content, or as a link.
    """
    left, right = stat_in(name, one), stat_in(name, other)
    if left is None or right is None:
        return False
    if (left.st_mode, left.st_size) != (right.st_mode, right.st_size):
        return False
    if stat.S_ISLNK(left.st_mode):
        return os.readlink(name, dir_fd=one) == os.readlink(name, dir_fd=other)
    with (
        suppress(PermissionError),
        opened(name, one, FILE_FLAGS) as mine,
        opened(name, other, FILE_FLAGS) as theirs,
    ):
        while chunk := os.read(mine, CHUNK_BYTES):
            if chunk != os.read(theirs, CHUNK_BYTES):
                return False
        return True
    return False


def _link(name: str, source: int, target: int, store: int) -> bool:
    """
    Replace a file by a hard link in one step; False where there can be none.
    """
    with suppress(FileNotFoundError):
        os.unlink(ASIDE, dir_fd=store)
    try:
        os.link(name, ASIDE, src_dir_fd=source, dst_dir_fd=store, follow_symlinks=False)
    except OSError as error:
        if error.errno not in NO_LINK:
            raise
        return False
    os.rename(ASIDE, name, src_dir_fd=store, dst_dir_fd=target)
    # rename(2) does nothing where both are the same file already.
    with suppress(FileNotFoundError):
        os.unlink(ASIDE, dir_fd=store)
    return True
