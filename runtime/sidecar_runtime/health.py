"""
What a sidecar tells, and the state of its process: heartbeat, past cycles, last error.

*Alive* means that the worker itself finished a cycle recently, successful or failed.
*Ready* means that what consumers need is published and valid now; only the sidecar can
tell, so it implements a function for it.
"""

import time
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, Protocol

from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence

Result = Literal[
    "changed", "unchanged", "partial", "waiting", "settling", "held", "refused", "error"
]

PAST_CYCLES = 20
QUIET = ("unchanged", "partial", "waiting", "settling", "held", "refused")


class About(NamedTuple):
    """
    The identity of this process: image name, version, and a description of source and
    target.

    Args:
        pod: As in :func:`sidecar_runtime.app.find_pod`.
        settings: The settings that differ from the defaults, as written.
    """

    sidecar: str
    version: str
    source: str
    target: str
    pod: Mapping[str, str] = {}
    settings: Mapping[str, str] = {}


class Readiness(NamedTuple):
    """
    Whether what consumers need is published and valid now; each sidecar answers for
    itself (s3-sync in ``folder/target.py``).

    Args:
        revision: Short name of the published revision; empty before the first publish.
        published_at: Unix time of that publish.
        problem: Why it is not ready; empty if it is.
        shortfall: Why the published state is incomplete or older than the source; empty
            if it is the complete newest revision.
    """

    ready: bool
    revision: str = ""
    published_at: float | None = None
    problem: str = ""
    shortfall: str = ""


class Outcome(NamedTuple):
    """
    The result of a cycle; a failed cycle raises instead of returning ``error``.

    Args:
        result: ``partial``: only the readable files are published. ``waiting``: another
            process owns the target. ``settling``: the source may still be changing.
            ``held``: it changed so much that a person should confirm. ``refused``: the
            gate refuses its revision.
        revision: Short name of the source state that is now published.
        counts: Numbers of changes, by name with unit, for the log line and the status
            page. Empty if a partial or refused cycle changed nothing.
        problem: A problem that a person should know about, although the cycle did not
            fail.
        is_enough: Whether a one-shot may end, although the result is partial, held or
            refused.
    """

    result: Result
    revision: str = ""
    counts: Mapping[str, int | str] = {}
    problem: SidecarError | None = None
    is_enough: bool = False

    @property
    def is_success(self) -> bool:
        """
        Whether the published state is the state of the source.
        """
        return self.result in ("changed", "unchanged")

    @property
    def is_publish(self) -> bool:
        """
        Whether the cycle published a change, possibly only readable files or a
        fallback.
        """
        is_short = self.result in ("partial", "refused")
        return self.result == "changed" or (is_short and bool(self.counts))


class PastCycle(NamedTuple):
    """
    A cycle that has ended: Unix time of its start, the seconds that it took, and its
    outcome.
    """

    started_at: float
    duration_seconds: float
    outcome: Outcome


class Health:
    """
    The health of one process: written by the loop and its worker, read by the endpoint.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._beat_at = clock()
        self._limit_seconds = 60.0
        self._next_cycle_at = clock()
        self.cycles: tuple[PastCycle, ...] = ()
        """
        The past ones, newest first; replaced, never changed: readers need no lock.
        """
        self.last_error: SidecarError | None = None
        """The latest failure or other problem, until a cycle has none."""
        self.last_error_at: float | None = None
        self.failing_since: float | None = None
        """
        Unix time of the first problem of the current series, as `last_error_at` of the
        last.
        """
        self.consecutive_failures = 0

    def beat(self) -> None:
        """
        Update the heartbeat; only the worker calls this, after a cycle.
        """
        self._beat_at = self._clock()

    def expect_cycle(self, in_seconds: float, late_seconds: float) -> None:
        """
        Set when the next cycle will start, and how late its end may be before the
        process counts as not alive.
        """
        self._next_cycle_at = self._clock() + in_seconds
        self._limit_seconds = in_seconds + late_seconds

    @property
    def beat_age_seconds(self) -> float:
        return self._clock() - self._beat_at

    @property
    def is_alive(self) -> bool:
        return self.beat_age_seconds < self._limit_seconds

    @property
    def next_cycle_in_seconds(self) -> float:
        return max(0.0, self._next_cycle_at - self._clock())

    def record(self, outcome: Outcome, seconds: float) -> None:
        """
        Add a cycle that has just ended to the history; one that succeeded may have a
        problem, too.

        Args:
            seconds: How long it took.
        """
        now, before, problem = time.time(), self.cycles, outcome.problem
        # its traceback would keep everything that the cycle held
        if problem is not None:
            problem = SidecarError(problem.reason, problem.message, problem.advice)
            outcome = outcome._replace(problem=problem)
        # Repeated quiet cycles share one line, or they would push out the others.
        last = before[0].outcome if before else Outcome("error")
        if outcome.result == last.result in QUIET and not last.is_publish:
            before = before[1:]
        self.cycles = (PastCycle(now - seconds, seconds, outcome), *before)[
            :PAST_CYCLES
        ]
        self.last_error, self.last_error_at = problem, now
        self.failing_since = (self.failing_since or now) if problem else None
        is_failure = outcome.result == "error"
        self.consecutive_failures = self.consecutive_failures + 1 if is_failure else 0


# --- the interface that a sidecar implements; the runtime does the rest


class Names(dict[str, object]):
    """
    Facts keyed by foreign names, such as object keys or DAGs: the status page shows
    them unchanged.
    """


class Session(Protocol):
    """
    The state of one thread that runs cycles.
    """

    def cycle(self, fence: Fence) -> Outcome:
        """
        Run one cycle; every publish goes through the fence.

        Raises:
            SidecarError: The cycle failed; the published state is unchanged.
            GaveUp: The cycle failed and should not be retried: the process ends.
            CycleAbandoned: The fence was revoked.
        """


class Sidecar(Protocol):
    """
    The interface between a sidecar and the loop.
    """

    def begin(self) -> Session:
        """
        Return the session of the calling thread, in which all cycles run.
        """

    def readiness(self) -> Readiness:
        """
        Return whether what consumers need is published and valid now; cheap and
        thread-safe.
        """

    def details(self) -> dict[str, object]:
        """
        Return this sidecar's additional facts for the status page; no secrets.
        """
