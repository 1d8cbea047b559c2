"""
Records each cycle in health, metrics and the log.
"""

from __future__ import annotations

import logging
import time

from sidecar_runtime.errors import GaveUp, SidecarError
from sidecar_runtime.health import Health, LastError, Outcome, PastCycle
from sidecar_runtime.logs import get_logger
from sidecar_runtime.loop.backoff import Backoff
from sidecar_runtime.metrics import Metrics
from sidecar_runtime.settings import CommonSettings

log = get_logger("sidecar")
_STANDARD_LOG = logging.getLogger("sidecar")


class Record:
    """
    Records the cycles of one process; its only decision is the wait after a failure.
    """

    def __init__(
        self, health: Health, metrics: Metrics, settings: CommonSettings, backoff: Backoff
    ) -> None:
        self._health = health
        self._metrics = metrics
        self._settings = settings
        self._backoff = backoff
        self._unchanged = metrics.cycles("unchanged")

    def glance(self, seconds: float) -> None:
        """
        Record a glance that found no change, as the cycle that it replaces; called in the worker's
        thread.
        """
        self._metrics.duration.observe(seconds)
        self._health.beat()
        self._health.glance()
        self._health.expect_cycle(self._settings.interval_seconds)
        self._unchanged.inc()
        self._metrics.last_success.set_to_current_time()

    def success(self, outcome: Outcome, seconds: float, *, is_asked_for: bool) -> None:
        """
        Record a cycle that did not fail, its duration in seconds, and whether SIGHUP triggered it.
        """
        failures = self._health.consecutive_failures
        problem = _last_error(outcome.problem) if outcome.problem else None
        before = self._health.last_error
        self._metrics.cycles(outcome.result).inc()
        self._metrics.consecutive_failures.set(0)
        if outcome.is_success or outcome.result in ("partial", "waiting"):
            self._metrics.last_success.set_to_current_time()
        reason = problem.reason if problem else ""
        started = time.time() - seconds
        cycle = PastCycle(started, seconds, outcome.result, reason, outcome.counts)
        self._health.record(cycle, problem)
        if cycle.is_publish:
            self._metrics.last_publish.set_to_current_time()
        is_end = bool(failures) or is_asked_for  # of what the log has begun to report
        if outcome.result in ("waiting", "settling") and problem is None and not is_end:
            return
        is_partial = outcome.result in ("partial", "settling", "waiting") and problem is not None
        is_known = bool(problem and before and before.message == problem.message)
        is_new_problem = is_partial and not is_known
        is_news = is_end or cycle.is_publish or is_new_problem
        if not is_news and not _STANDARD_LOG.isEnabledFor(logging.DEBUG):
            return  # structlog takes 0.04 ms to discard a line (2026-11)
        why = (
            {"reason": problem.reason, "error": problem.message, "advice": problem.advice}
            if is_partial and problem is not None
            else {}
        )
        (log.warning if is_new_problem else log.info if is_news else log.debug)(
            "cycle_finished",
            result=outcome.result,
            revision=outcome.revision,
            failures_before=failures,
            duration_seconds=round(seconds, 3),
            **why,
            **outcome.counts,
        )

    def failure(self, error: Exception, seconds: float) -> float:
        """
        Record a failure; return the seconds to wait before the next try.
        """
        last = _last_error(error)
        self._health.record(
            PastCycle(time.time() - seconds, seconds, "error", last.reason, {}), last
        )
        failures = self._health.consecutive_failures
        self._metrics.cycles("error").inc()
        self._metrics.failures(last.reason).inc()
        self._metrics.consecutive_failures.set(failures)
        wait_seconds = self._backoff.seconds(failures, self._settings.interval_seconds)
        if isinstance(error, SidecarError) and error.retry_within_seconds is not None:
            wait_seconds = min(wait_seconds, error.retry_within_seconds)
        is_known = isinstance(error, SidecarError)
        (log.warning if is_known else log.error)(
            "cycle_failed",
            reason=last.reason,
            error=last.message,
            advice=last.advice,
            consecutive_failures=failures,
            retry_in_seconds=round(wait_seconds, 2),
            exc_info=None if is_known else error,
        )
        return wait_seconds

    def give_up(self, reason: str, otherwise: str, blame: SidecarError | None) -> GaveUp:
        """
        Return the error that ends the process, with the last cause.

        Args:
            reason: The limit that was reached.
            otherwise: The message if no cause is known.
            blame: The failure that the running cycle is waiting out.
        """
        if error := self._health.last_error or blame:
            return GaveUp(reason, f"{error.reason}: {error.message}", error.advice)
        prefix = self._settings.variable_prefix
        advice = "Find out what the cycle waits on (network or volume)"
        cycles = self._health.past_cycles()
        if cycles and cycles[0].result == "waiting":
            holder = cycles[0].counts.get("holder", "unknown")
            otherwise = f"another process held the lock until the deadline: {holder}"
            advice = "Find out why it runs for so long"
        if cycles and cycles[0].result == "settling":
            otherwise, advice = "the source kept changing", f"Lower {prefix}SETTLE"
        return GaveUp(reason, otherwise, f"{advice}, or raise {prefix}ONE_SHOT_DEADLINE.")


def _last_error(error: Exception) -> LastError:
    if isinstance(error, SidecarError):
        return LastError(error.reason, error.message, error.advice, time.time())
    said = f"{type(error).__name__}: {error}"
    advice = "This is a bug. Please report it with the traceback from the log."
    return LastError("bug", said, advice, time.time())
