"""
Decides when the next pass may start: at once while passes make progress, with backoff otherwise.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

PAUSE_SECONDS = 5.0
MAX_PAUSE_SECONDS = 300.0
# If a pass writes only what others wrote within this time, another process undoes it.
UNDONE_SECONDS = 600.0


class Pace:
    """
    The waits between passes.

    Attributes:
        strikes: How many passes in a row failed, or wrote rows that had been undone.
        next_at: The monotonic time before which no pass starts.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._written: list[tuple[float, frozenset[object]]] = []
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

    def note(self, rows: Collection[object]) -> bool:
        """
        Record that a pass wrote these rows; return whether other processes keep undoing them.

        Once is an accident, or a person who tries something.
        """
        since = self._clock() - UNDONE_SECONDS
        self._written = [one for one in self._written if one[0] > since]
        times = sum(written.issuperset(rows) for _, written in self._written) if rows else 0
        if rows:
            self._written.append((self._clock(), frozenset(rows)))
            self.strikes = self.strikes if times > 1 else 0
        if times > 1:
            self.strike()
        return times > 1
