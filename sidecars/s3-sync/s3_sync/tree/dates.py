"""
The modification times of published files.
"""

from __future__ import annotations

import os
import time

from s3_sync.tree.journal import ManagedList

SECOND_NS = 1_000_000_000


class Dates:
    """
    Gives each file a later modification time than its predecessor at the same path.
    """

    def __init__(self, managed: ManagedList) -> None:
        self._managed = managed
        # Modification times of deleted files, which a successor must not reuse.
        self._gone: dict[str, int] = {}

    def next(self, path: str, before: os.stat_result | None) -> int:
        """
        Return the current time, or the next full second after the predecessor's if that is later.

        Python's bytecode cache and Airflow's file processor compare whole seconds and sizes.
        """
        predecessors = [self._gone.get(path, 0)]
        if held := self._managed.files.get(path):
            predecessors.append(held.mtime_ns)
        if before is not None:
            predecessors.append(before.st_mtime_ns)
        earliest = (max(predecessors) // SECOND_NS + 1) * SECOND_NS
        return max(time.time_ns(), earliest)

    def note_gone(self, path: str, mtime_ns: int) -> None:
        """
        Remember the modification time of a deleted file.
        """
        self._gone[path] = mtime_ns

    def forget_past(self) -> None:
        """
        Forget deletions whose time a new file can no longer get.
        """
        now = time.time_ns()
        self._gone = {path: ns for path, ns in self._gone.items() if ns > now - SECOND_NS}
