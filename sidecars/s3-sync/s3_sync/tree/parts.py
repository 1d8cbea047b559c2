"""
The target folder and the parts of `.s3-sync` that are kept like it, each with a list of files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from s3_sync.keys import RESERVED
from s3_sync.tree.journal import NAME as MANAGED
from s3_sync.tree.journal import Managed, load_managed
from s3_sync.tree.volume import PATH_FLAGS, Volume, open_own_folder


def list_name(part: str) -> str:
    """
    Return the name of a part's list: it is beside the part, or in `.s3-sync` for the target.
    """
    name = part.rpartition("/")[2]
    return f"{name}.{MANAGED}" if name else MANAGED


def open_part(part: str, volume: Volume, stack: ExitStack) -> tuple[int, int]:
    """
    Open a part; return the folder that contains its list, and the part itself.

    Raises:
        OSError: A folder of the path cannot be created or opened.
    """
    above, folder = volume.state, volume.root if not part else volume.state
    for name in part.split("/") if part else ():
        if name in ("", ".", ".."):  # a last safeguard: no caller passes such names
            raise ValueError(f"not a part of .s3-sync: {part!r}")
        above, folder = folder, open_own_folder(name, folder)
        stack.callback(os.close, folder)
    return above, folder


@contextmanager
def read_part(path: str, part: str) -> Iterator[tuple[int, int]]:
    """
    Open a part like :func:`open_part`, but read-only and without holding the target's lock.

    Raises:
        OSError: A folder of the path is missing or not a folder.
    """
    with ExitStack() as stack:

        def enter(name: str, above: int | None = None, flags: int = PATH_FLAGS) -> int:
            folder = os.open(name, flags, dir_fd=above)
            stack.callback(os.close, folder)
            return folder

        root = enter(path, flags=os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        above = enter(RESERVED, root)
        folder = root if not part else above
        for name in part.split("/") if part else ():
            above, folder = folder, enter(name, folder)
        yield above, folder


def read_target(path: str, part: str) -> dict[str, Managed]:
    """
    Return the managed files of a target without changing it.

    Args:
        part: See :class:`Target`.
    """
    try:
        with read_part(path, part) as (above, folder):
            return load_managed(above, folder, list_name(part), is_shared=not part)[0]
    except (FileNotFoundError, NotADirectoryError):
        return {}
