"""
What a sidecar tells, and the state of its process: heartbeat, past cycles, last error.

*Alive* means that the worker itself finished a cycle recently, successful or failed.
*Ready* means that what consumers need is published and valid now; only the sidecar can
tell, so it implements a function for it.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Literal, NamedTuple, Protocol

from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence

Result = Literal["changed", "unchanged", "waiting", "partial", "failed"]

PAST_CYCLES = 20
QUIET = ("unchanged", "waiting", "partial")
# What needs nobody while consumers have what they need.
CALM = ("cycle_slow", "target_locked")
# Until the first cycle has ended.
STARTING = SidecarError(
    "starting", "no cycle has ended yet", "Wait; the log says what it does meanwhile."
)


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
    itself (s3-sync in ``readiness.py``).

    Args:
        revision: Short name of the published revision; empty before the first publish.
        published_at: Unix time of that publish.
        problem: Why it is not ready; None if it is.
        shortfall: Why the published state is incomplete or older than the source; empty
            if it is the complete newest revision.
    """

    revision: str = ""
    published_at: float | None = None
    problem: SidecarError | None = STARTING
    shortfall: str = ""

    @property
    def ready(self) -> bool:
        return self.problem is None


@dataclass(frozen=True)
class Outcome:
    """
    The result of a cycle. None waits or falls short without a reason.

    Args:
        result: ``changed``, ``unchanged``: the published state is that of the source.
            ``waiting``: nothing was tried, because it is not the time for it yet.
            ``partial``: what is published falls short of the source, and only another
            source or a person changes that. ``failed``: what the loop makes of whatever
            a cycle raises.
        revision: Short name of the source state that is now published.
        counts: Numbers of changes, by name with unit, for the log line and the status
            page. Of a partial cycle that changed nothing, all are 0.
        why: What it waits for, lacks or failed with.
        until: The Unix time when a wait ends, unless something happens before; None or
            infinite if nobody knows.
        is_enough: Whether a one-shot may end all the same.

    Raises:
        ValueError: The reason is missing, or there is nothing to give a reason for.
    """

    result: Result
    revision: str = ""
    counts: Mapping[str, int | str] = field(default_factory=dict)
    why: SidecarError | None = None
    until: float | None = None
    is_enough: bool = False

    def __post_init__(self) -> None:
        if self.is_success != (self.why is None):
            raise ValueError(f"{self.result} with the reason {self.why!r}")

    @property
    def is_success(self) -> bool:
        """
        Whether the published state is the state of the source.
        """
        return self.result in ("changed", "unchanged")

    @property
    def reason(self) -> str:
        """
        The reason why it is no success; empty if it is one.
        """
        return "" if self.why is None else self.why.reason

    @property
    def is_publish(self) -> bool:
        """
        Whether the cycle published a change, possibly only readable files or a
        fallback.
        """
        is_short = self.result == "partial" and any(self.counts.values())
        return self.result == "changed" or is_short


def waits_for_holder(holder: str, otherwise: str = "look for that process") -> Outcome:
    """
    Return the outcome of a cycle that found the lock of its target taken.

    Args:
        holder: As the lock names it, such as ``pid 7 on airflow-0``.
        otherwise: What to do about a lock that stays.
    """
    return Outcome(
        "waiting",
        counts={"holder": holder},
        why=SidecarError(
            "target_locked",
            f"{holder} holds the lock of the target",
            f"Nothing is wrong in a rolling update. Otherwise {otherwise}.",
        ),
    )


class PastCycle(NamedTuple):
    """
    A cycle that has ended: Unix time of its start, the seconds that it took, and its
    outcome.
    """

    started_at: float
    duration_seconds: float
    outcome: Outcome


class Standing(NamedTuple):
    """
    How cycles have ended lately, or what else is told; replaced as a whole.

    Args:
        why: Why the last one failed, fell short or waits; None if it did not.
        since: Since when, as Unix time; None if nobody knows.
        failures: How many have failed in a row; a wait ends no row.
        result: The kind of `why`; ``waiting`` if no cycle has ended with it.
        until: As in :class:`Outcome`.
    """

    why: SidecarError | None = None
    since: float | None = None
    failures: int = 0
    result: Result = "waiting"
    until: float | None = None

    @property
    def reason(self) -> str:
        """
        As :attr:`Outcome.reason`.
        """
        return self.why.reason if self.why else ""


class Health:
    """
    The health of one process: written by the loop and its worker, read by the endpoint.
    """

    def __init__(self) -> None:
        self._beat_at = monotonic()
        self._limit_seconds = 60.0
        self._next_cycle_at = monotonic()
        self.cycles: tuple[PastCycle, ...] = ()
        """
        The past ones, newest first; replaced, never changed: readers need no lock.
        """
        self.standing = Standing()
        self.slow = Standing()
        """What is to be said of a cycle that takes longer than others; by the loop."""
        self.crash = Standing()
        """What ended a thread that nobody expected to end."""

    def beat(self) -> None:
        """
        Update the heartbeat; only the worker calls this, after a cycle.
        """
        self._beat_at = monotonic()

    def expect_cycle(self, in_seconds: float, late_seconds: float) -> None:
        """
        Set when the next cycle will start, and how late its end may be before the
        process counts as not alive.
        """
        self._next_cycle_at = monotonic() + in_seconds
        self._limit_seconds = in_seconds + late_seconds

    @property
    def beat_age_seconds(self) -> float:
        return monotonic() - self._beat_at

    @property
    def is_alive(self) -> bool:
        return self.crash.why is None and self.beat_age_seconds < self._limit_seconds

    @property
    def next_cycle_within_seconds(self) -> float:
        return max(0.0, self._next_cycle_at - monotonic())

    def told(self, readiness: Readiness) -> Standing:
        """
        Return the one reason that /readyz, the page and `check` give.

        What a cycle found comes before the state that it left: it is the cause.
        """
        return next(
            (one for one in (self.crash, self.standing, self.slow) if one.why),
            Standing(readiness.problem),
        )

    def record(self, outcome: Outcome, seconds: float) -> None:
        """
        Add a cycle that has just ended to the history.

        Args:
            seconds: How long it took.
        """
        now = time.time()
        before = self.cycles
        last = before[0].outcome if before else None
        why = outcome.why
        # its traceback would keep everything that the cycle held
        if why:
            why = SidecarError(why.reason, why.message, why.advice)
            outcome = replace(outcome, why=why)
        is_same = self.standing.reason == outcome.reason
        # Repeated quiet cycles share one line, or they would push out the others.
        is_quiet = is_same and outcome.result in QUIET
        if last and is_quiet and last.result == outcome.result and not last.is_publish:
            before = before[1:]
        self.cycles = (PastCycle(now - seconds, seconds, outcome), *before)[
            :PAST_CYCLES
        ]
        failures = self.standing.failures + (outcome.result == "failed")
        self.standing = Standing(
            why=why,
            since=self.standing.since if is_same else now,
            failures=failures if outcome.result in ("failed", "waiting") else 0,
            result=outcome.result,
            until=outcome.until,
        )


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
