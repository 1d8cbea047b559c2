"""
The loop decides when a cycle runs, what its result means, and when the process stops.

APScheduler only triggers. Cycles run in a daemon thread of their own, because APScheduler joins its
pool at exit (a job that sleeps 6 s delays SIGTERM by 6 s, measured). Signal handlers and threads
only put events into a queue; the main thread takes them out and decides.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sidecar_runtime.errors import EXIT_DONE, GaveUp, SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.health import Health, Outcome
from sidecar_runtime.logs import get_logger
from sidecar_runtime.loop.backoff import Backoff, draw_interval
from sidecar_runtime.loop.events import Events
from sidecar_runtime.loop.record import Record
from sidecar_runtime.loop.worker import Finished, Glances, Worker
from sidecar_runtime.metrics import Metrics
from sidecar_runtime.settings import CommonSettings
from sidecar_runtime.sidecar import Sidecar

if TYPE_CHECKING:
    from sidecar_runtime.loop.trigger import Schedule

# Maximum number of threads that ignore their revoked fence (stuck in a system call). Then no new
# cycle starts, the heartbeat ages, and the liveness probe restarts the container.
STUCK_THREADS = 3

log = get_logger("sidecar")


@dataclass(frozen=True, slots=True)
class Pace:
    """
    The waits that are not configurable, in seconds.

    Args:
        waiting_retry_seconds: Wait before the next cycle if another process owns the target or
            the source is still being changed; never longer than the interval.
        clock_grace_seconds: How late the scheduler may be before the loop starts a cycle itself.
        liveness_grace_seconds: How late the heartbeat may be beyond interval, jitter and timeout.
        tidy_seconds: How long a cycle may clean up at the end of the process.
    """

    backoff: Backoff = field(default_factory=Backoff)
    waiting_retry_seconds: float = 2.0
    clock_grace_seconds: float = 2.0
    liveness_grace_seconds: float = 60.0
    tidy_seconds: float = 0.2


class Loop:
    """
    Runs cycles until a signal, a limit, or the success of a one-shot.
    """

    def __init__(
        self,
        sidecar: Sidecar,
        settings: CommonSettings,
        health: Health,
        metrics: Metrics,
        glances: int,
        pace: Pace = Pace(),
    ) -> None:
        """
        Args:
            glances: How many cycles after a success a glancing session replaces with glances.
        """
        self._sidecar = sidecar
        self._settings = settings
        self._health = health
        self._duration = metrics.duration
        self._pace = pace
        self._record = Record(health, metrics, settings, pace.backoff)
        self._events: Events[str | signal.Signals | Finished] = Events()
        self._worker: Worker | None = None
        self._stuck: list[Worker] = []
        self._started_at = 0.0
        self._deadline: float | None = None
        self._run_again = False
        self._is_asked_for = False
        self._give_up_at = (
            time.monotonic() + settings.one_shot_deadline_seconds if settings.one_shot else None
        )
        self._jitter_seconds = settings.interval_seconds / 10
        self._glances = (
            Glances(glances, self._draw_interval, self._record.glance, self.wake)
            if glances
            else None
        )
        self._next_at = time.monotonic()
        self._schedule = None if settings.one_shot else self._make_schedule()

    def wake(self) -> None:
        """
        Trigger a cycle now, even during a backoff; may be called from any thread.
        """
        self._events.put("wake")

    def run(self) -> int:
        """
        Run until the process should end; return the exit code.

        Raises:
            GaveUp: The failure limit or a one-shot's deadline was reached, or a cycle raised it.
        """
        with closing(self._events), self._signals():
            self._health.expect_beat(
                self._settings.timeout_seconds + self._pace.liveness_grace_seconds
            )
            if self._schedule is not None:
                self._schedule.start()
            try:
                while True:
                    code = self._handle(self._next_event())
                    if code is not None:
                        return code
            finally:
                self._stop()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """
        Turn signals into events.
        """
        handled = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        before = {
            number: signal.signal(number, lambda n, _: self._events.put(signal.Signals(n)))
            for number in handled
        }
        wakeup_before = self._events.listen_to_signals()
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup_before)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _next_event(self) -> str | signal.Signals | Finished:
        """
        Wait for an event, or for the nearest of the loop's own (monotonic) deadlines.
        """
        moments = {"trigger": self._next_at}
        if self._schedule is not None:
            late_seconds = self._jitter_seconds + self._pace.clock_grace_seconds
            moments = {"clock": self._next_at + late_seconds}
        if self._deadline is not None:
            moments = {"timeout": self._deadline}
        if self._give_up_at is not None:
            moments["give_up"] = self._give_up_at
        name = min(moments, key=lambda key: moments[key])
        return self._events.get(moments[name] - time.monotonic()) or name

    def _handle(self, event: str | signal.Signals | Finished) -> int | None:
        """
        Act on one event; an exit code ends the loop.
        """
        match event:
            case signal.SIGHUP:
                log.info("signal_received", signal="SIGHUP")
                self._is_asked_for = True
                self._start_now()
            case signal.Signals():
                log.info("signal_received", signal=event.name)
                return EXIT_DONE
            case Finished():
                return self._finish(event)
            case "wake":
                self._start_now()
            case "trigger":
                self._next_at = time.monotonic() + self._settings.interval_seconds
                self._start_cycle()
            case "clock":
                # APScheduler uses the wall clock: if that is set back, it does not trigger.
                log.info("trigger_overdue")
                self._move(0.0)
            case "timeout":
                return self._abandon_cycle()
            case "give_up":
                raise self._give_up("one_shot_deadline", "no cycle succeeded in time")
        return None

    def _make_schedule(self) -> Schedule:
        # Not in one-shots: APScheduler is a quarter of the imports in each task pod.
        from sidecar_runtime.loop.trigger import Schedule  # noqa: PLC0415

        return Schedule(
            lambda: self._events.put("trigger"),
            self._settings.interval_seconds,
            self._jitter_seconds,
        )

    def _move(self, in_seconds: float) -> None:
        """
        Reschedule the next cycle; later cycles follow at the usual interval.
        """
        self._next_at = time.monotonic() + in_seconds
        self._health.expect_cycle(in_seconds)
        if self._schedule is not None:
            self._events.drop("trigger")  # it fired meanwhile, for the old time
            self._schedule.move(in_seconds)

    def _start_now(self) -> None:
        """
        Start a cycle now, or right after the running one.
        """
        self._run_again = self._deadline is not None
        self._start_cycle()

    def _start_cycle(self) -> None:
        if self._deadline is not None:
            return
        self._stuck = [worker for worker in self._stuck if worker.fence is not None]
        if self._worker is not None and self._worker.fence is not None:
            self._worker.retire()
            self._stuck.append(self._worker)
            self._worker = None
        if len(self._stuck) >= STUCK_THREADS:
            log.error("cycle_threads_stuck", threads=len(self._stuck))
            return
        if self._worker is None:
            self._worker = Worker(self._sidecar.begin, self._report, self._glances)
        self._started_at = time.monotonic()
        self._deadline = self._started_at + self._settings.timeout_seconds
        if self._is_asked_for:
            log.info("cycle_started", signal="SIGHUP")
        self._worker.start_cycle(Fence(is_asked_for=self._is_asked_for))
        self._is_asked_for = False

    def _report(self, finished: Finished) -> None:
        self._health.beat()
        self._events.put(finished)

    def _draw_interval(self) -> float:
        return draw_interval(self._settings.interval_seconds, self._jitter_seconds)

    def _abandon_cycle(self) -> int | None:
        """
        Revoke the fence of a cycle that took too long, and count the cycle as failed.

        Its thread remains the worker if it returns before the next cycle is due.
        """
        assert self._worker is not None and self._worker.fence is not None
        self._worker.fence.revoke()
        limit, seconds = f"{self._settings.variable_prefix}TIMEOUT", self._settings.timeout_seconds
        return self._settle(
            self._worker.fence.blame
            or SidecarError(
                "cycle_timeout",
                f"the cycle took longer than {limit} ({seconds:g} s) and was abandoned",
                f"Find out what it waits on (network or volume), or raise {limit}.",
            )
        )

    def _finish(self, finished: Finished) -> int | None:
        for worker in [*self._stuck, self._worker]:
            if worker is not None and worker.fence is finished.fence:
                worker.fence = None
        if finished.fence.is_revoked:
            return None
        return self._settle(finished.end, is_asked_for=finished.fence.is_asked_for)

    def _settle(self, end: Outcome | BaseException, *, is_asked_for: bool = False) -> int | None:
        """
        Record the end of a cycle; decide when the next one starts, or that the process ends.
        """
        self._deadline = None
        seconds = time.monotonic() - self._started_at
        next_look_seconds = float("inf")
        wait_seconds: float | None = None
        self._duration.observe(seconds)
        if isinstance(end, Outcome):
            self._record.success(end, seconds, is_asked_for=is_asked_for)
            if self._settings.one_shot and (end.is_success or end.is_enough):
                return EXIT_DONE
            is_short = end.result == "partial" and self._settings.one_shot
            if is_short or end.result in ("waiting", "settling"):
                wait_seconds = min(
                    self._settings.interval_seconds, self._pace.waiting_retry_seconds
                )
            elif self._glances is not None:
                # A glance triggered this cycle, so the scheduled one may be far in the future.
                wait_seconds = next_look_seconds = self._settings.interval_seconds
                if end.is_success:
                    wait_seconds *= self._glances.limit + 1
        elif isinstance(end, Exception):
            wait_seconds = self._record.failure(end, seconds)
            if isinstance(end, GaveUp):
                raise end
            if self._health.consecutive_failures >= self._settings.max_failures > 0:
                raise self._give_up("failure_limit", "too many failures")
        else:
            raise end
        if self._run_again:
            self._run_again = False
            wait_seconds = 0.0
        if wait_seconds is not None:
            self._move(wait_seconds)
        left = max(0.0, min(self._next_at - time.monotonic(), next_look_seconds))
        self._health.expect_cycle(left)
        self._health.expect_beat(
            left
            + self._jitter_seconds
            + self._settings.timeout_seconds
            + self._pace.liveness_grace_seconds
        )
        return None

    def _give_up(self, reason: str, otherwise: str) -> GaveUp:
        fence = self._worker.fence if self._worker else None
        return self._record.give_up(reason, otherwise, fence.blame if fence else None)

    def _stop(self) -> None:
        """
        Allow no further publish, and give the worker a moment to clean up.
        """
        if self._schedule is not None:
            self._schedule.stop()
        if self._deadline is None or self._worker is None or self._worker.fence is None:
            return
        fence = self._worker.fence
        fence.revoke()
        until = time.monotonic() + self._pace.tidy_seconds
        while (left := until - time.monotonic()) > 0:
            event = self._events.get(left)
            if isinstance(event, Finished) and event.fence is fence:
                return
