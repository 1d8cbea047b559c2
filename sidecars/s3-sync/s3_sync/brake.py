"""
The brake on mass deletion: a listing that lacks most files is usually a mistake, so it is held back
long enough for you to notice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from sidecar_runtime.errors import SidecarError
from sidecar_runtime.logs import get_logger

HOLD_SECONDS = 900.0
# Up to this many deletions are never held back.
HARMLESS_FILES = 20
NAMED_FILES = 20

log = get_logger("cycle")


class DeletionHeld(SidecarError):
    """
    A listing is held back because it would delete too many files.
    """

    def __init__(self, files: int, held: int) -> None:
        super().__init__(
            "deletion_held",
            f"{files} of {held} files are missing from the source; this listing is held back for "
            f"{HOLD_SECONDS / 60:g} minutes",
            "If this is a mistake, undo it at the source before a pod is replaced: a new volume "
            "holds nothing back. If it is intended, wait, or send SIGHUP.",
        )
        self.files = files


class Brake:
    """
    Holds listings back that would delete too many files, and remembers since when.
    """

    def __init__(self, percent: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._percent = percent
        self._clock = clock
        self._since: float | None = None
        # Files that may be deleted now that they were held long enough; further ones are held.
        self._released: set[str] = set()

    def judge(self, gone: Collection[str], held: int, *, is_asked_for: bool) -> DeletionHeld | None:
        """
        Return why a listing is held back; None if it may be applied.

        Args:
            gone: The published files that it lacks.
            held: The number of published files.
            is_asked_for: Whether an operator triggered this cycle; releases a hold known before.
        """
        self._released.intersection_update(gone)
        rest = len(gone) - len(self._released)
        if rest <= HARMLESS_FILES or rest * 100 <= held * self._percent:
            self._since = None
            return None
        is_new = self._since is None
        if self._since is None:
            self._since = self._clock()
            log.warning(
                "deletion_held",
                files_to_delete=len(gone),
                managed_files=held,
                hold_seconds=HOLD_SECONDS,
                paths=sorted(gone)[:NAMED_FILES],
            )
        if (is_asked_for and not is_new) or self._clock() - self._since >= HOLD_SECONDS:
            self._since, self._released = None, set(gone)
            return None
        return DeletionHeld(len(gone), held)
