"""
What is known about this process: heartbeat, past cycles, last error. No HTTP, no decisions.

Two questions, two answers. *Alive*: the worker itself finished a cycle recently, failed or
not. *Ready*: what consumers need is published and valid now; only the sidecar can tell, so it
brings a function for it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from sidecar_runtime.errors import SidecarError
from sidecar_runtime.history import History

Result = Literal[
    "changed", "unchanged", "partial", "waiting", "settling", "held", "refused", "error"
]

PAST_CYCLES = 20
QUIET = ("unchanged", "partial", "waiting", "settling", "held", "refused")


class Readiness(NamedTuple):
    """
    Whether what consumers need is published and valid now.

    Args:
        revision: Short name of what is published; empty before the first publish.
        published_at: Unix time of that publish.
        problem: Why it is not ready; empty where it is.
        shortfall: What is published is less than the source has, or older: in words; empty where
            it is all of the newest.
    """

    ready: bool
    revision: str = ""
    published_at: float | None = None
    problem: str = ""
    shortfall: str = ""


class Outcome(NamedTuple):
    """
    What a cycle did; a failed one raises instead.

    Args:
        result: ``partial``: what could be read is published. ``waiting``: another process owns the
            target. ``settling``: the source is still being changed. ``held``: it changed so much
            that a person should look first. ``refused``: the gate does not let its revision pass.
        revision: Short name of the source state that is now published.
        counts: What was done, by name with unit; goes to the log line and the status page. Empty
            where a partial cycle has changed nothing.
        problem: What a person should know, although nothing failed.
        is_enough: Whether a one-shot may end with less than all.
    """

    result: Literal["changed", "unchanged", "partial", "waiting", "settling", "held", "refused"]
    revision: str = ""
    counts: Mapping[str, int | str] = {}
    problem: SidecarError | None = None
    is_enough: bool = False

    @property
    def is_success(self) -> bool:
        """
        Whether what is published is what the source says.
        """
        return self.result in ("changed", "unchanged")


class PastCycle(NamedTuple):
    """
    One line of the history: Unix time of the start, seconds it took, result, counts.
    """

    started_at: float
    duration_seconds: float
    result: Result
    reason: str
    counts: Mapping[str, int | str]


class LastError(NamedTuple):
    """
    The failure that the loop is recovering from; Unix time of the failure.
    """

    reason: str
    message: str
    advice: str
    at: float


class Health:
    """
    Written by the loop and its worker, read by the endpoint; safe between threads.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._beat_at = clock()
        self._limit_seconds = 60.0
        self._next_cycle_at: float | None = None
        self._cycles: deque[PastCycle] = deque(maxlen=PAST_CYCLES)
        self._history = History(clock)
        self.last_error: LastError | None = None
        self.failing_since: float | None = None
        """Unix time of the first failure, or other trouble, of the current series."""
        self.consecutive_failures = 0

    def beat(self) -> None:
        """
        Stamp the heartbeat; only the worker calls this, when it has finished a cycle.
        """
        self._beat_at = self._clock()

    def expect_beat(self, within_seconds: float) -> None:
        """
        State how old the heartbeat may become before the worker counts as stalled.
        """
        self._limit_seconds = within_seconds

    def expect_cycle(self, in_seconds: float) -> None:
        """
        State when the next cycle will start, for the status page.
        """
        self._next_cycle_at = self._clock() + in_seconds

    @property
    def beat_age_seconds(self) -> float:
        return self._clock() - self._beat_at

    @property
    def is_alive(self) -> bool:
        return self.beat_age_seconds < self._limit_seconds

    @property
    def next_cycle_in_seconds(self) -> float | None:
        if self._next_cycle_at is None:
            return None
        return max(0.0, self._next_cycle_at - self._clock())

    def record(self, cycle: PastCycle, error: LastError | None) -> None:
        """
        Add a cycle to the history; one with a problem has an error, but is not a failure.
        """
        with self._lock:
            self._history.note(cycle.result)
            # A quiet week is one line, not twenty equal ones.
            if self._cycles and cycle.result == self._cycles[0].result in QUIET:
                self._cycles.popleft()
            self._cycles.appendleft(cycle)
            self.last_error = error
            self.failing_since = (self.failing_since or error.at) if error else None
            is_failure = cycle.result == "error"
            self.consecutive_failures = self.consecutive_failures + 1 if is_failure else 0

    def glance(self) -> None:
        """
        Note a glance that stands for an unchanged cycle, in the history of hours alone.
        """
        with self._lock:
            self._history.note("unchanged")

    def last_hours(self) -> list[str]:
        """
        Return the last hours, as :meth:`History.recent`.
        """
        with self._lock:
            return self._history.recent()

    def past_cycles(self) -> list[PastCycle]:
        """
        Return the history, newest first.
        """
        with self._lock:
            return list(self._cycles)
