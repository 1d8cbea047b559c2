"""
Compares the files on disk with the list of published files.
"""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping

from s3_sync.tree.journal import Managed


class Scan:
    """
    Selects the files to inspect next, slice by slice: inspecting all of them costs more than
    polling S3.

    Args:
        least: The minimum number of files in a slice.
        cycles: The maximum number of slices for all files.
    """

    def __init__(self, least: int, cycles: int) -> None:
        self._least = least
        self._cycles = cycles
        self._left: Iterator[str] = iter(())

    def start_over(self) -> None:
        """
        Begin again with the first file.
        """
        self._left = iter(())

    def next_slice(self, files: Collection[str]) -> list[str]:
        """
        Return the files of one cycle, continuing with the first after the last.
        """
        count = max(self._least, -(-len(files) // self._cycles))
        paths = list(itertools.islice(self._left, count))
        if len(paths) < count:
            self._left = iter(list(files))
            paths += itertools.islice(self._left, count - len(paths))
        return paths


def damaged(files: Mapping[str, Managed], paths: Iterable[str], root: int) -> set[str]:
    """
    Return the paths below an open folder whose files differ from what was published.
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
    Whether neither a folder nor any folder above it is a symlink.

    Args:
        known: Results by folder; extended by this call.
    """
    answer = known.get(folder)
    if answer is None:
        answer = is_real_folder(folder.rpartition("/")[0], root, known) and stat.S_ISDIR(
            os.stat(folder, dir_fd=root, follow_symlinks=False).st_mode
        )
        known[folder] = answer
    return answer
