"""
The real loop in this process's main thread, with a scripted sidecar and short waits.

Tests send signals only after the first cycle has started: the loop's handlers are
installed then.
"""

import os
import re
import signal
import threading
import time
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, get_args
from unittest.mock import Mock

import pytest

from sidecar_runtime.errors import EXIT_DONE, SidecarError
from sidecar_runtime.fence import Fence, waits_for
from sidecar_runtime.health import Health, Outcome, Readiness, Result, Standing
from sidecar_runtime.http.endpoint import Endpoint
from sidecar_runtime.loop import Idle, Loop, Pace, Running, backoff_seconds
from sidecar_runtime.metrics import Metrics
from sidecar_runtime.settings import CommonSettings
from tests import Deed
from tests.runtime.recording import (
    ABOUT,
    CHANGED,
    UNCHANGED,
    Log,
    Script,
    settings_of,
    value_of,
)
from tests.support.waiting import wait_until

DENIED = SidecarError("access_denied", "may not list", "allow it")
REFUSAL = SidecarError(
    "revision_refused", "the gate refuses r2: a.py:3: what", "fix it"
)
REFUSED = Outcome("partial", "r1", why=REFUSAL)
UNSETTLED = SidecarError("source_unsettled", "it changes", "leave it")
SETTLING = Outcome("waiting", "r1", why=UNSETTLED)
# The waits of `Pace`, a fraction of a second long.
QUICK = Pace(backoff=lambda *_: 0.02, waiting_retry_seconds=0.05, tidy_seconds=0.05)
# A failure is not repeated by itself.
RESTING = QUICK._replace(backoff=lambda *_: 600.0)
SCHEDULER = "apscheduler.schedulers.background.BackgroundScheduler"


@dataclass
class Run:
    """A loop with its scripted sidecar, settings, health and metrics."""

    sidecar: Script
    settings: CommonSettings
    pace: Pace
    health: Health = field(default_factory=Health)
    metrics: Metrics = field(default_factory=lambda: Metrics("box"))
    loop: Loop = field(init=False)

    def __call__(self) -> int:
        """Run the loop and return its exit code."""
        self.loop = type("PacedLoop", (Loop,), {"pace": self.pace})(
            self.sidecar, self.settings, self.health, self.metrics
        )
        return self.loop.run()

    def until_stopped(self) -> None:
        """Run until the script is over."""
        assert self() == EXIT_DONE

    def until(self, results: int, act: Deed = lambda: send(signal.SIGTERM)) -> None:
        """
        Run until `act`, called from another thread after that many cycles, ends the
        loop.
        """
        self.sidecar.rests = True  # the other thread may be late
        thread = self.when_idle(results, act)
        self.until_stopped()
        thread.join()

    def when_idle(self, results: int, act: Deed) -> threading.Thread:
        """Run `act` in another thread once that many cycles are recorded."""

        def wait() -> None:
            wait_until(lambda: self.count() >= results, "the cycles")
            act()

        thread = threading.Thread(target=wait)
        thread.start()
        return thread

    def count(self, *results: str) -> float:
        """Return how often the metric counted these results, by default all."""
        return sum(
            value_of(self.metrics.cycles(name))
            for name in (results or get_args(Result))
        )

    def results(self) -> list[str]:
        return [cycle.outcome.result for cycle in reversed(self.health.cycles)]


def run(*steps: Any, pace: Pace = QUICK, **changes: Any) -> Run:
    """
    Return an unstarted loop; `changes` are settings, and the interval defaults to an
    hour.
    """
    return Run(Script(*steps), replace(settings_of(), **changes), pace)


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


def hear(log: Log, number: signal.Signals) -> None:
    """Send a signal and wait until the loop has received it."""
    count = len(log.events("signal_received"))
    send(number)
    wait_until(
        lambda: len(log.events("signal_received")) > count,
        "the signal is heard",
        step_seconds=0,
    )


# --- when cycles run


def unstarted(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Loop:
    """Return a loop with an interval of 15 minutes that runs nothing."""
    monkeypatch.setattr(SCHEDULER, Mock())
    one = run(interval_seconds=900.0, **changes)
    waits = Loop(one.sidecar, one.settings, one.health, one.metrics)
    waits.pace = QUICK
    return waits


def test_the_interval_is_from_start_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shifted by up to a tenth, at random."""
    monkeypatch.setattr("random.uniform", lambda low, high: low * high)

    def cycle(_: Fence) -> Outcome:
        one.loop._ticks.next_at -= 100.0
        return CHANGED

    one = run(cycle, interval_seconds=900.0)
    one.until(1)

    left_seconds = one.settings.interval_seconds * 0.9 * 1.1 - 100.0
    assert left_seconds - 10.0 < one.health.next_cycle_within_seconds <= left_seconds


def test_a_cycle_that_takes_longer_than_the_interval_misses_some() -> None:
    def cycle(_: Fence) -> Outcome:
        started.append(time.monotonic())
        time.sleep(0.5)
        return CHANGED

    started: list[float] = []
    run(cycle, cycle, interval_seconds=0.3).until_stopped()

    assert 0.53 <= started[1] - started[0]


@pytest.mark.parametrize("is_silent", [False, True])
def test_cycles_continue_even_if_the_scheduler_is_silent(
    log: Log, monkeypatch: pytest.MonkeyPatch, *, is_silent: bool
) -> None:
    """
    It uses the wall clock: if that is set back by a day, it is silent for a day, unless
    it is set again.
    """
    scheduler = Mock()
    if is_silent:
        monkeypatch.setattr(SCHEDULER, scheduler)
    run(
        CHANGED,
        CHANGED,
        pace=QUICK._replace(clock_grace_seconds=0.05 if is_silent else 600.0),
        interval_seconds=0.1,
    ).until_stopped()

    assert 2 == len(log.events("cycle_finished"))
    begun = 3 if is_silent else 0  # the script's last cycle ends it
    assert begun == scheduler().add_job.call_count


def test_a_signal_that_came_before_the_loop_ends_it() -> None:
    """In some places, Python drops what its handler raises; the byte stays."""
    one = run(CHANGED, CHANGED, interval_seconds=0.1)
    signal.signal(signal.SIGTERM, lambda *_: None)
    send(signal.SIGTERM)
    one.until_stopped()

    assert one.sidecar.cycles < 2


# --- failures


def test_an_exit_in_a_cycle_is_a_failure() -> None:
    one = run(SystemExit(), KeyboardInterrupt(), CHANGED, interval_seconds=0.1)

    one.until_stopped()

    assert ["failed", "failed", "changed"] == one.results()


def test_wake_cannot_end_the_wait_after_a_failure_that_its_sidecar_does_not_know() -> (
    None
):
    """
    It would ask for the next cycle again and again: nothing has noted that this one
    failed.
    """

    def cycle(_: Fence) -> Outcome:
        one.loop.wake()
        raise ZeroDivisionError

    one = run(cycle, CHANGED, pace=RESTING)

    def ask() -> None:
        for _turn in range(50):
            one.loop.wake()
        send(signal.SIGTERM)

    one.until(1, ask)

    assert 1 == one.sidecar.cycles


def test_a_trigger_that_fires_as_a_cycle_fails_does_not_end_the_backoff() -> None:
    """It would also overwrite the time of the next cycle, which then seems overdue."""
    one = run(DENIED, CHANGED, pace=RESTING)
    record = one.health.record

    def trigger(outcome: Outcome, seconds: float) -> None:
        one.loop._events.put("tick")
        record(outcome, seconds)

    one.health.record = trigger  # type: ignore[method-assign]

    one.until(1)

    assert 1 == one.sidecar.cycles


def test_backoff_grows_with_failures_and_a_success_resets_it() -> None:
    asked: list[tuple[int, float]] = []

    def backoff(failures: int, interval_seconds: float) -> float:
        asked.append((failures, interval_seconds))
        return 0.01

    began = time.time()
    one = run(
        DENIED,
        DENIED,
        DENIED,
        CHANGED,
        DENIED,
        pace=QUICK._replace(backoff=backoff),
        interval_seconds=0.1,
    )
    one.until_stopped()

    assert asked == [(1, 0.1), (2, 0.1), (3, 0.1), (1, 0.1)]
    assert began < value_of(one.metrics.last_success) < time.time()


def test_backoff_doubles_with_each_failure_up_to_a_minute_or_the_interval(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("random.uniform", lambda _, high: high)

    assert [2, 4, 8, 16, 32, 60, 60] == [backoff_seconds(n, 10) for n in range(1, 8)]
    assert [0.4, 0.8, 1.6] == [backoff_seconds(n, 0.2) for n in range(1, 4)]
    assert 3600 == backoff_seconds(100, 3600)


@pytest.mark.parametrize(
    ("until", "seconds"), [(1600.0, 600.0), (9999.0, 900.0), (None, 0.05), (1.0, 0.05)]
)
def test_a_wait_that_names_its_end_is_not_looked_at_before(
    monkeypatch: pytest.MonkeyPatch, until: float | None, seconds: float
) -> None:
    """Each look at S3, git or a database costs a request."""
    monkeypatch.setattr("time.time", lambda: 1000.0)
    assert seconds == unstarted(monkeypatch)._wait_seconds(
        replace(SETTLING, until=until)
    )


def test_a_one_shot_whose_revision_is_refused_keeps_its_interval(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only another revision ends it; what else it lacks, it tries again at once."""
    waits = unstarted(monkeypatch, one_shot=True)

    refused = waits._wait_seconds(REFUSED)
    assert refused and refused > 600
    assert QUICK.waiting_retry_seconds == waits._wait_seconds(
        Outcome("partial", "r1", why=DENIED)
    )


@pytest.mark.parametrize("result", ["waiting", "partial", "failed"])
def test_an_outcome_without_a_reason_cannot_be_made(result: Result) -> None:
    with pytest.raises(ValueError, match=f"{result} with the reason None"):
        Outcome(result)


def test_a_failure_that_becomes_a_wait_for_the_same_reason_has_not_ended(
    log: Log,
) -> None:
    run(UNSETTLED, SETTLING, CHANGED, interval_seconds=0.1).until_stopped()

    assert 1 == len(log.events("reason_ended"))
    assert [] == log.events("wait_began")


def test_a_cycle_that_takes_longer_than_others_is_told_while_it_runs(log: Log) -> None:
    """A dead volume or a slow network is visible before the timeout."""
    pace = QUICK._replace(slow_seconds=0.2)
    told: list[Standing] = []

    def is_told() -> bool:
        one.loop.wake()  # whoever asks without end puts nothing off
        return one.health.slow.why is not None

    def is_slow(fence: Fence) -> Outcome:
        with fence.waiting("an answer"):
            wait_until(is_told, "it is told")
        with fence.waiting("git-sync"):
            wait_until(lambda: "git-sync" in str(one.health.slow.why), "the next step")
        answer = Endpoint(ABOUT, one.health, one.sidecar, one.metrics).answer(
            "/metrics"
        )
        assert b'reason="cycle_slow",result="waiting"' in answer.body
        assert answer.content_type.startswith("text/plain")
        told.append(one.health.told(Readiness("r1", 1.0, None)))
        return CHANGED

    one = run(is_slow, CHANGED, pace=pace)

    one.until(2)

    (slow,) = log.events("cycle_slow")
    assert re.search(r": since [\d-]+T[\d:]+Z it waits for an answer$", slow["error"])
    assert any("wait_until" in call for call in slow["stack"])
    assert ["cycle_slow"] == [one.why and one.why.reason for one in told]
    assert Standing() == one.health.slow
    (ended,) = log.events("reason_ended")
    assert "cycle_slow" == ended["reason"]


def test_a_cycle_is_not_slow_that_takes_no_longer_than_the_last_ten() -> None:
    """But it is abandoned at its timeout, however long those took."""
    seen: list[float] = []

    def look(_: Fence) -> Outcome:
        state = one.loop._state
        assert isinstance(state, Running)
        seen.extend(at - state.started_at for at in (state.slow_at, state.until))
        one.loop._worker.durations.append(60.0)
        return CHANGED

    one = run(look, look, interval_seconds=0.1, timeout_seconds=60.0)

    one.until_stopped()

    assert [10.0, 60.0, 90.0, 60.0] == [round(seconds, 3) for seconds in seen]


# --- signals


@pytest.mark.parametrize("is_asked_for", [True, False], ids=["SIGHUP", "wake"])
def test_whoever_asks_without_end_gets_a_burst_of_cycles_and_then_one_in_a_period(
    *, is_asked_for: bool
) -> None:
    """
    As a task that requests releases: each cycle is a request to the source. The first
    one ends the backoff after a failure.
    """
    pace = RESTING._replace(asked_burst=3, asked_seconds=600.0)
    asked: list[bool] = []

    def cycle(fence: Fence) -> Outcome:
        asked.append(fence.is_asked_for)
        return UNCHANGED

    one = run(DENIED, *[cycle] * 99, pace=pace)

    def has_run(count: int) -> bool:
        state = one.loop._state
        if isinstance(state, Idle) and state.asker is not None:
            return state.until > time.monotonic() + 60.0
        return len(asked) >= count

    def ask() -> None:
        for count in (1, 2, 3, 4, 5, 6):
            send(signal.SIGHUP) if is_asked_for else one.loop.wake()
            wait_until(partial(has_run, count), "a cycle, or its turn")
        send(signal.SIGTERM)

    one.until(1, ask)

    assert [is_asked_for] * 3 == asked


def test_a_cycle_that_has_to_wait_for_its_turn_is_the_one_that_was_asked_for() -> None:
    """A wake that comes meanwhile, or the regular trigger, does not make it another."""
    pace = QUICK._replace(asked_burst=1, asked_seconds=0.5)
    asked: list[bool] = []

    def cycle(fence: Fence) -> Outcome:
        asked.append(fence.is_asked_for)
        return UNCHANGED

    one = run(*[cycle] * 99, pace=pace)

    def ask() -> None:
        one.loop.wake()
        wait_until(lambda: 2 == len(asked), "the first turn")
        send(signal.SIGHUP)
        for _turn in range(5):
            one.loop.wake()
        wait_until(lambda: 3 == len(asked), "the second turn")
        send(signal.SIGTERM)

    one.until(1, ask)

    assert [False, False, True] == asked[:3]


def test_sighup_during_a_cycle_triggers_one_more_after_it(log: Log) -> None:
    """
    Otherwise a change after the listing of the running cycle would wait for an
    interval.
    """

    def cycle(_: Fence) -> Outcome:
        for _turn in range(3):
            hear(log, signal.SIGHUP)
        return CHANGED

    one = run(cycle, UNCHANGED)

    one.until(2)

    assert ["changed", "unchanged"] == one.results()


# --- the end of a cycle that takes too long


def test_an_abandoned_cycle_that_ends_is_repeated_after_its_backoff_or_if_asked_for() -> (
    None
):
    asked: list[bool] = []

    def follows(fence: Fence) -> Outcome:
        asked.append(fence.is_asked_for)
        return CHANGED

    one = run(lambda fence: fence.wait(60), follows, pace=RESTING, timeout_seconds=0.1)

    def ask() -> None:
        wait_until(lambda: not one.loop._worker.is_busy, "it has ended")
        send(signal.SIGHUP)
        wait_until(lambda: asked, "another cycle")
        send(signal.SIGTERM)

    one.until(1, ask)

    assert [True] == asked


def test_is_not_alive_and_starts_no_cycle_while_an_abandoned_one_hangs(
    log: Log,
) -> None:
    """
    And when it comes back, it publishes nothing, and the next one follows: the one that
    SIGHUP asked for meanwhile, in vain, and without another failure.
    """
    released = threading.Event()
    published: list[str] = []
    asked: list[bool] = []
    pace = QUICK._replace(liveness_grace_seconds=1.0, stuck_seconds=600.0)

    def hangs(fence: Fence) -> Outcome:
        fence.step = waits_for("its answer")
        fence.on_revoke(lambda: setattr(fence, "step", ""))
        hear(log, signal.SIGHUP)
        assert released.wait(60)
        with fence:
            published.append("r1")
        return CHANGED

    def follows(fence: Fence) -> Outcome:
        asked.append(fence.is_asked_for)
        return CHANGED

    one = run(hangs, follows, pace=pace, timeout_seconds=0.5, interval_seconds=0.1)

    def look() -> None:
        wait_until(lambda: not one.health.is_alive, "it is not alive")
        assert 1 == one.sidecar.cycles
        released.set()
        wait_until(lambda: one.sidecar.cycles > 1, "another cycle")
        send(signal.SIGTERM)

    one.until(0, look)

    assert [] == published
    assert [True] == asked
    assert 1 == len(log.events("cycle_started"))
    failed, stuck = log.events("cycle_failed")
    assert "cycle_timeout" == failed["reason"] == stuck["reason"]
    assert failed["advice"].endswith("Or raise X_TIMEOUT.")
    assert failed["error"].startswith(
        "the cycle took longer than 0.5 s and was abandoned: since "
    )
    assert failed["error"].endswith("Z it waits for its answer")
    assert f"{failed['error']}, and has not returned since" == stuck["error"]
    (abandoned,) = log.events("cycle_abandoned")
    assert any("in hangs" in call or " hangs" in call for call in abandoned["stack"])
