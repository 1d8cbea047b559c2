"""
Runs cycles: decides when the next one starts, what its end means, and when the process
stops.

The main thread decides (:class:`Loop`). The threads that hear signals and run cycles,
and the trigger (APScheduler), only put events into its queue.
"""

import gc
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from queue import Empty, SimpleQueue
from typing import Any, Literal, NamedTuple

import sidecar_runtime
from sidecar_runtime.errors import EXIT_DONE, GaveUp, SidecarError, explain
from sidecar_runtime.fence import Fence
from sidecar_runtime.health import Health, Outcome, Session, Sidecar, Standing
from sidecar_runtime.logs import get_logger
from sidecar_runtime.metrics import Metrics
from sidecar_runtime.rate_limit import RateLimit
from sidecar_runtime.settings import CommonSettings

STACK_CALLS = 20
# How often a running cycle is looked at: whether it is slow, and which step it is at.
LOOK_SECONDS = 1.0

log = get_logger("sidecar")


def backoff_seconds(failures: int, interval_seconds: float) -> float:
    """
    Return the seconds to wait after the given number of consecutive failures (1 or
    more).

    Exponential: up to two seconds, or two intervals if that is less, then twice as long
    with each failure, up to a minute, or the interval if that is longer. With full
    jitter (a wait drawn from the whole range), which best spreads a fleet that failed
    together; see "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    longest = min(
        max(60.0, interval_seconds), min(1.0, interval_seconds) * 2 ** min(failures, 32)
    )
    return max(0.2, random.uniform(0.0, longest))


class Pace(NamedTuple):
    """
    The waits that are not configurable, in seconds.

    Args:
        backoff: As :func:`backoff_seconds`.
        waiting_retry_seconds: The shortest wait before the next cycle if one waits for
            something, such as a lock; never longer than the interval.
        slow_seconds: A cycle that takes longer than this, and by half than the last
            ten, is told while it runs.
        stuck_seconds: The shortest wait for an abandoned cycle to return, until that is
            told again.
        clock_grace_seconds: How late the trigger may be before the loop starts a cycle
            itself.
        liveness_grace_seconds: How late the heartbeat may be beyond wait and timeout.
        tidy_seconds: How long a cycle may clean up at the end of the process.
        asked_burst: How many cycles may be asked for at once, by SIGHUP or
            :meth:`Loop.wake`.
        asked_seconds: After them, one cycle in this time starts because it is asked
            for.
    """

    backoff: Callable[[int, float], float] = backoff_seconds
    waiting_retry_seconds: float = 2.0
    slow_seconds: float = 10.0
    stuck_seconds: float = 30.0
    clock_grace_seconds: float = 2.0
    liveness_grace_seconds: float = 60.0
    tidy_seconds: float = 0.2
    asked_burst: int = 20
    asked_seconds: float = 1.0


# --- what the loop is doing, and what happens to it


class Finished(NamedTuple):
    """
    A cycle has returned, or raised this.
    """

    fence: Fence
    end: Outcome | BaseException


Event = Literal["tick", "wake"] | signal.Signals | Finished


class Idle(NamedTuple):
    """
    No cycle runs; the next one starts at the latest at this time.

    Args:
        is_regular: Whether the trigger ends it.
        asker: Who asked for that cycle.
    """

    until: float
    is_regular: bool = False
    asker: Event | None = None


class Running(NamedTuple):
    """
    A cycle runs, and is abandoned at this time.

    Args:
        slow_at: When it counts as slow.
        again: Who asked for another cycle meanwhile; it follows at once.
    """

    until: float
    fence: Fence
    started_at: float
    slow_at: float
    again: Event | None = None


class Worker:
    """
    The daemon thread that runs cycles, one at a time; all of them in one session.

    Args:
        report: Called in the thread at the end of a cycle.
        rate_limit: How many cycles may start because somebody asks for them.

    Raises:
        RuntimeError: No thread can be started.
    """

    def __init__(
        self,
        begin: Callable[[], Session],
        report: Callable[[Finished], object],
        rate_limit: RateLimit,
    ) -> None:
        self._begin = begin
        self._report = report
        self.rate_limit = rate_limit
        self.durations = deque[float](maxlen=10)
        """The seconds that the last cycles took."""
        self.late: SidecarError
        """Why its last cycle was abandoned, once one was."""
        self._requests: SimpleQueue[Fence] = SimpleQueue()
        self.is_busy = False
        """Whether a cycle has not returned, an abandoned one too."""
        self._thread = threading.Thread(target=self._work, name="cycle", daemon=True)
        self._thread.start()

    def stack(self) -> list[str]:
        """
        Return where its thread is now, the innermost call last.
        """
        frame = sys._current_frames().get(self._thread.ident or 0)
        return [call.strip() for call in traceback.format_stack(frame, STACK_CALLS)]

    def start(self, fence: Fence) -> None:
        """
        Run a cycle under this fence.

        Raises:
            SidecarError: An abandoned cycle has not returned (stuck in a system call);
                why it was abandoned stays the cause. No other one can run; the
                heartbeat ages, and the liveness probe restarts the container.
        """
        if self.is_busy:
            raise SidecarError(
                self.late.reason,
                f"{self.late.message}, and has not returned since",
                f"{self.late.advice} Liveness restarts the container.",
            )
        self.is_busy = True
        self._requests.put(fence)

    def _work(self) -> None:
        session: Session | None = None
        while True:
            fence = self._requests.get()
            started_at = time.monotonic()
            end: Outcome | BaseException
            try:
                session = session or self._begin()
                end = session.cycle(fence)
            except BaseException as error:  # noqa: BLE001 - the main thread decides
                end = error
            self.durations.append(time.monotonic() - started_at)
            self.is_busy = False
            self._report(Finished(fence, end))
            if not isinstance(end, Outcome):
                # The traceback keeps the cycle's objects, downloads too, alive in
                # reference cycles.
                del end
                gc.collect()


# --- what decides


class Ticks:
    """
    A trigger of APScheduler that fires once in an interval, shifted by up to a tenth, to
    spread a fleet.

    APScheduler's own one counts each interval since it last fired: millions, if the
    clock was set forward by a year.

    Attributes:
        next_at: When it fires next, on the monotonic clock.
    """

    next_at = 0.0

    def __init__(self, interval_seconds: float) -> None:
        self._interval_seconds = interval_seconds

    def get_next_fire_time(self, _: object, now: datetime) -> datetime:
        seconds = self._interval_seconds * random.uniform(0.9, 1.1)
        self.next_at = time.monotonic() + seconds
        return now + timedelta(seconds=seconds)


class Loop:
    """
    Runs cycles until a signal, a limit, or the success of a one-shot.

    Attributes:
        pace: Shorter in tests.
    """

    pace = Pace()

    def __init__(
        self,
        sidecar: Sidecar,
        settings: CommonSettings,
        health: Health,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._health = health
        self._metrics = metrics
        self._events: SimpleQueue[Event] = SimpleQueue()
        self._worker = Worker(
            sidecar.begin,
            self._report,
            RateLimit(self.pace.asked_burst, self.pace.asked_seconds),
        )
        self._ticks = Ticks(settings.interval_seconds)
        self._scheduler: Any = None
        if not settings.one_shot:
            # A quarter of the imports of a one-shot, in each task pod.
            import apscheduler.schedulers.background  # noqa: PLC0415

            apscheduler.triggers.base.BaseTrigger.register(Ticks)
            # Its job runs in its own thread (`debug`): a pool is joined at exit, and a
            # job that sleeps 6 s delays SIGTERM by 6 s (measured).
            self._scheduler = apscheduler.schedulers.background.BackgroundScheduler(
                executors={"default": {"type": "debug"}}, timezone=UTC
            )
            self._scheduler.start()
        self._give_up_at = time.monotonic() + (
            settings.one_shot_deadline_seconds if settings.one_shot else float("inf")
        )
        self._state: Idle | Running | None
        """None: the process is about to end."""
        self._rest(0.0)

    def wake(self) -> None:
        """
        Start a cycle now, even during a backoff; may be called from any thread.
        """
        self._events.put("wake")

    def run(self) -> int:
        """
        Run until the process should end; return the exit code.

        Raises:
            GaveUp: The failure limit or a one-shot's deadline was reached, or a cycle
                raised it.
        """
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)  # without one, no byte is written
        threading.Thread(target=self._hear, name="signals", daemon=True).start()
        try:
            while self._state is not None:
                # However often something happens meanwhile.
                if time.monotonic() >= self._give_up_at:
                    raise self._gave_up("one_shot_deadline")
                state = self._state
                if isinstance(state, Running) and time.monotonic() >= state.slow_at:
                    self._tell_slow(state)
                left = min(state.until, self._give_up_at) - time.monotonic()
                if isinstance(state, Running):
                    left = min(left, LOOK_SECONDS)
                try:
                    self._handle(self._events.get(timeout=max(0.0, left)))
                except Empty:
                    if time.monotonic() < state.until:
                        continue
                    if isinstance(state, Running):
                        self._abandon(state.fence)
                    else:
                        # Not by the trigger, which is set again: it may be late by hours,
                        # if the clock was set back.
                        self._begin_ticks()
                        self._start(state.asker)
            return EXIT_DONE
        finally:
            self._revoke()
            if self._scheduler is not None:
                self._scheduler.shutdown(wait=False)

    def _hear(self) -> None:
        """
        Put the signals that arrive, or arrived before, into the queue.

        Python runs handlers in the main thread, and notices a signal that arrives right
        before a wait at its end (once in 1,500 SIGTERMs): hence bytes, and a thread of
        its own for them.
        """
        while number := os.read(sidecar_runtime.SIGNALS_READ, 1):
            self._events.put(signal.Signals(number[0]))

    def _report(self, finished: Finished) -> None:
        """
        Put the end of a cycle into the queue; called in the cycle's thread, which
        proves it alive.
        """
        self._health.beat()
        self._events.put(finished)

    def _handle(self, event: Event) -> None:
        """
        Act on one event.
        """
        state = self._state
        if isinstance(event, signal.Signals):
            log.info("signal_received", signal=event.name)
        match event:
            case signal.SIGHUP | "wake":
                self._ask(event)
            case signal.SIGTERM | signal.SIGINT:
                self._revoke()
                self._state = None
            case "tick" if isinstance(state, Idle) and state.is_regular:
                self._start(state.asker)
            case Finished(fence, end) if (
                isinstance(state, Running) and fence is state.fence
            ):
                self._end_one_shot_or_rest(end)  # it was not abandoned
            case Finished() if isinstance(state, Idle):
                # It was abandoned; the backoff after that goes on, unless somebody asked.
                self._expect_cycle(state.until - time.monotonic())
                if state.asker is not None:
                    self._ask(state.asker)

    def _ask(self, asker: Event) -> None:
        """
        Start a cycle as soon as the rate limit permits, or right after the running one.

        Whoever asks without end, as a task can at s3-sync's socket, gets a cycle in
        ``asked_seconds``, and its source no more requests than that.
        """
        state = self._state
        # Its sidecar has not noted it, and may ask for the next one again and again.
        is_bug = self._health.standing.reason == "bug"
        if isinstance(state, Running):
            if state.again != signal.SIGHUP:
                self._state = state._replace(again=asker)
        elif isinstance(state, Idle) and (asker == signal.SIGHUP or not is_bug):
            if state.asker == signal.SIGHUP:
                asker = state.asker
            at = time.monotonic() + self._worker.rate_limit.wait_seconds
            if self._worker.is_busy:  # an abandoned cycle: its end asks again
                at = state.until
            self._state = state._replace(until=min(state.until, at), asker=asker)

    def _start(self, asker: Event | None) -> None:
        """
        Start a cycle; while an abandoned one hangs, note that none can.
        """
        if asker is not None:
            self._worker.rate_limit.use()
        is_asked_for = asker == signal.SIGHUP
        is_stuck = self._worker.is_busy
        fence = Fence(is_asked_for=is_asked_for)
        longest = max(self._worker.durations, default=0.0)
        now = time.monotonic()
        self._state = Running(
            until=now + self._settings.timeout_seconds,
            fence=fence,
            started_at=now,
            slow_at=now + max(self.pace.slow_seconds, 1.5 * longest),
            # Whoever asked has got nothing yet, nor has the regular cycle.
            again=(asker or "wake") if is_stuck else None,
        )
        if is_asked_for and not is_stuck:
            log.info("cycle_started", signal="SIGHUP")
        try:
            self._worker.start(fence)
        except SidecarError as error:
            error.retry_after_seconds = self.pace.stuck_seconds
            self._end_one_shot_or_rest(error)

    def _tell_slow(self, state: Running) -> None:
        """
        Say that a cycle takes longer than others, and what it does: a wait for a dead
        volume or for one core among many is not visible otherwise, for minutes.
        """
        began_at = time.time() - (time.monotonic() - state.started_at)
        why = state.fence.blame or SidecarError(
            "cycle_slow",
            f"the running cycle takes longer than those before it{state.fence.step}",
            "Look at what it waits for, if that should answer sooner; the log's line has its "
            "stack. A step may have a shorter limit of its own; the cycle is abandoned at "
            f"the latest after {self._settings.timeout_seconds:g} s.",
        )
        if self._health.slow.reason != why.reason:  # else its next step
            log.info("cycle_slow", **why.log_fields(), stack=self._worker.stack())
        self._health.slow = Standing(why, began_at)

    def _abandon(self, fence: Fence) -> None:
        """
        Revoke the fence of a cycle that took too long, and count the cycle as failed.
        """
        # Once it is revoked, it does something else.
        log.warning("cycle_abandoned", stack=self._worker.stack())
        self._worker.late = fence.blame or SidecarError(
            "cycle_timeout",
            # A sidecar may allow its cycles more than the variable says.
            f"the cycle took longer than {self._settings.timeout_seconds:g} s "
            f"and was abandoned{fence.step}",
            "The log's line cycle_abandoned says what it waits on. Or raise "
            f"{self._settings.variable_prefix}TIMEOUT.",
        )
        fence.revoke()
        self._end_one_shot_or_rest(self._worker.late)

    def _end_one_shot_or_rest(self, end: Outcome | BaseException) -> None:
        """
        Record the end of a cycle; decide when the next one starts, or that the process
        ends.
        """
        assert isinstance(self._state, Running)
        again = self._state.again
        seconds = time.monotonic() - self._state.started_at
        self._tell_reason_over(self._health.slow)
        self._health.slow = Standing()
        if isinstance(end, Outcome):
            self._record_success(
                end, seconds, is_asked_for=self._state.fence.is_asked_for
            )
            if self._settings.one_shot and (end.is_success or end.is_enough):
                self._state = None
                return
            self._rest(self._wait_seconds(end))
        else:
            self._rest(self._record_failure(end, seconds))
            if isinstance(end, GaveUp):
                raise end
            if self._health.standing.failures >= self._settings.max_failures > 0:
                raise self._gave_up("failure_limit")
        if again is not None:
            self._ask(again)

    def _wait_seconds(self, outcome: Outcome) -> float | None:
        """
        Return how long to wait after a cycle that did not fail; None to wait for the
        trigger.
        """
        interval = self._settings.interval_seconds
        shortest = self.pace.waiting_retry_seconds
        if outcome.result == "waiting":
            return min(interval, max(shortest, (outcome.until or 0.0) - time.time()))
        if not self._settings.one_shot:
            return None
        # A refusal ends with another revision, not with another try.
        if outcome.result == "partial" and outcome.reason != "revision_refused":
            return min(interval, shortest)
        return interval

    def _rest(self, seconds: float | None) -> None:
        """
        Be idle for this many seconds, or until the trigger fires: from start to start;
        a long cycle misses some.
        """
        now = time.monotonic()
        is_regular = seconds is None
        grace_seconds = 0.0
        if seconds is None:
            grace_seconds = self.pace.clock_grace_seconds
            seconds = max(0.0, self._ticks.next_at - now)
        self._state = Idle(now + seconds + grace_seconds, is_regular)
        if not self._worker.is_busy:  # else a stuck cycle would put off its limit
            self._expect_cycle(seconds)

    def _expect_cycle(self, in_seconds: float) -> None:
        self._health.expect_cycle(
            in_seconds,
            self._settings.timeout_seconds + self.pace.liveness_grace_seconds,
        )

    def _begin_ticks(self) -> None:
        """
        Let the trigger fire in intervals from now on.
        """
        if self._scheduler is not None:
            self._scheduler.add_job(
                lambda: self._events.put("tick"),
                self._ticks,
                id="cycle",
                replace_existing=True,
                misfire_grace_time=None,
            )

    def _revoke(self) -> None:
        """
        Let a running cycle publish nothing more, and give it a moment to clean up.
        """
        if isinstance(self._state, Running):
            self._state.fence.revoke()
            time.sleep(self.pace.tidy_seconds)

    def _gave_up(self, reason: str) -> GaveUp:
        """
        Return the error that ends the process because of this limit, with the last
        cause: why a cycle failed or waits, or what the running one is waiting out.
        """
        fence = self._state.fence if isinstance(self._state, Running) else Fence()
        error = self._health.standing.why or fence.blame
        if error is None:
            return GaveUp(
                reason,
                f"no cycle has ended in time{fence.step}",
                "Find out what the cycle waits on, or raise "
                f"{self._settings.variable_prefix}ONE_SHOT_DEADLINE.",
            )
        return GaveUp(reason, f"{error.reason}: {error.message}", error.advice)

    # --- how a cycle is reported

    def _record_success(
        self, outcome: Outcome, seconds: float, *, is_asked_for: bool
    ) -> None:
        """
        Record a cycle that did not fail: in the log if it is news.
        """
        before = self._health.standing
        self._record(outcome, seconds)
        why = outcome.why.log_fields() if outcome.why else {}
        is_trouble = why and before.reason != outcome.reason
        is_news = outcome.is_publish or before.failures or is_asked_for
        if outcome.result == "waiting" and not is_asked_for:
            if is_trouble:  # else they are two seconds apart
                log.info("wait_began", **why, **outcome.counts)
            return
        if is_trouble:
            tell = log.warning
        elif is_news:
            tell = log.info
        else:
            tell = log.debug
        tell(
            "cycle_finished",
            result=outcome.result,
            revision=outcome.revision or None,
            failures_before=before.failures,
            duration_seconds=round(seconds, 3),
            **why,
            **outcome.counts,
        )

    def _record_failure(self, error: BaseException, seconds: float) -> float:
        """
        Record a cycle that failed; return the seconds to wait before the next try.
        """
        cause = explain(error)
        failures = self._health.standing.failures + 1
        self._metrics.failures(cause.reason).inc()
        wait_seconds = self.pace.backoff(failures, self._settings.interval_seconds)
        if cause.retry_within_seconds is not None:
            wait_seconds = min(wait_seconds, cause.retry_within_seconds)
        wait_seconds = max(wait_seconds, cause.retry_after_seconds)
        self._record(
            Outcome("failed", why=cause, until=time.time() + wait_seconds), seconds
        )
        is_bug = cause.reason == "bug"
        tell = log.error if is_bug else log.warning
        tell(
            "cycle_failed",
            **cause.log_fields(),
            consecutive_failures=failures,
            retry_in_seconds=round(wait_seconds, 2),
            exc_info=error if is_bug else None,
        )
        return wait_seconds

    def _record(self, outcome: Outcome, seconds: float) -> None:
        """
        Record a cycle in health, log and metrics.
        """
        health = self._health
        metrics = self._metrics
        before = health.standing
        health.record(outcome, seconds)
        if before.reason != outcome.reason:
            self._tell_reason_over(before)
        metrics.duration.observe(seconds)
        metrics.cycles(outcome.result).inc()
        metrics.consecutive_failures.set(health.standing.failures)
        if (
            outcome.result not in ("waiting", "failed")
            or outcome.reason == "target_locked"
        ):
            metrics.last_success.set_to_current_time()

    def _tell_reason_over(self, ended: Standing) -> None:
        """
        Log that a reason has ended, if there is one, and how long it lasted.
        """
        if ended.reason and ended.since:
            log.info(
                "reason_ended",
                reason=ended.reason,
                result=ended.result,
                # the clock may have been set back
                lasted_seconds=round(max(0.0, time.time() - ended.since), 1),
            )
