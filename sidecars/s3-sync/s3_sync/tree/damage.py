"""
What is on disk, held against the list of what was published.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping

from s3_sync.tree.managed import Managed


def damaged(files: Mapping[str, Managed], paths: Iterable[str], root: int) -> set[str]:
    """
    Return those of the paths below an open folder that are not as they were published.
    """
    is_real = {"": True}
    found = set()
    for path in paths:
        held = files.get(path)
        if held is None:
            continue
        above = path.rpartition("/")[0]
        try:
            if not (
                (is_real.get(above) or is_real_folder(above, root, is_real))
                and held.matches(os.lstat(path, dir_fd=root))
            ):
                found.add(path)
        except OSError:
            found.add(path)
    return found


def is_real_folder(folder: str, root: int, known: dict[str, bool]) -> bool:
    """
    Whether neither a folder nor one above it is a symlink.

    Args:
        known: By folder; takes what is found.
    """
    answer = known.get(folder)
    if answer is None:
        answer = is_real_folder(folder.rpartition("/")[0], root, known) and stat.S_ISDIR(
            os.stat(folder, dir_fd=root, follow_symlinks=False).st_mode
        )
        known[folder] = answer
    return answer
