"""
Decides when the next pass may start: at once while passes make progress, with backoff otherwise.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Hashable

PAUSE_SECONDS = 5.0
MAX_PAUSE_SECONDS = 300.0
# Rows that several passes write within this time are undone by another process.
UNDONE_SECONDS = 600.0
UNDONE_TIMES = 2
# The most rows of a pass that are remembered for that; no one edits more by hand at once.
REMEMBERED_ROWS = 1_000


class Pace:
    """
    The waits between passes.

    Attributes:
        strikes: How many passes in a row failed, changed nothing, or wrote rows that are undone.
        next_at: The monotonic time before which no pass starts.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._written: dict[Hashable, list[float]] = {}
        self.strikes = 0
        self.next_at = float("-inf")

    @property
    def wait_seconds(self) -> float:
        """
        Return how long the next pass has to wait; 0 if it may start.
        """
        return max(0.0, self.next_at - self._clock())

    def strike(self) -> None:
        """
        Record that a pass failed or achieved nothing: wait 10, 20, 40, … seconds.
        """
        self.strikes += 1
        seconds = min(MAX_PAUSE_SECONDS, PAUSE_SECONDS * 2.0 ** min(self.strikes, 10))
        self.next_at = self._clock() + seconds

    def note(self, rows: Collection[Hashable]) -> bool:
        """
        Record that a pass wrote these rows; return whether other processes keep undoing them.
        """
        now = self._clock()
        recent = {
            row: kept
            for row, times in self._written.items()
            if (kept := [at for at in times if at > now - UNDONE_SECONDS])
        }
        is_undone = bool(rows) and all(len(recent.get(r, ())) >= UNDONE_TIMES for r in rows)
        if len(rows) <= REMEMBERED_ROWS:
            for row in rows:
                recent.setdefault(row, []).append(now)
        self._written = recent
        if is_undone:
            self.strike()
        elif rows:
            self.strikes, self.next_at = 0, float("-inf")
        return is_undone

    def forgive(self) -> None:
        """
        Let the next pass start now, as a person asked for it.
        """
        self.next_at = float("-inf")
