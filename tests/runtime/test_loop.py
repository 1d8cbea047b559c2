"""
The real loop in this process' main thread, with a scripted sidecar and short waits.

Signals are sent from within cycles only: the loop's own handlers are in place then.
"""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from sidecar_runtime import backoff
from sidecar_runtime import loop as module
from sidecar_runtime.errors import EXIT_DONE, GaveUp, SidecarError
from sidecar_runtime.fence import CycleAbandoned, Fence
from sidecar_runtime.health import Health, Outcome
from sidecar_runtime.loop import Loop
from sidecar_runtime.metrics import Metrics
from sidecar_runtime.settings import CommonSettings
from tests.runtime.recording import (
    CHANGED,
    UNCHANGED,
    WAITING,
    Log,
    Script,
    ScriptSession,
    Stop,
    settings_of,
)
from tests.support.waiting import wait_until

DENIED = SidecarError("access_denied", "may not list", "allow it")
REFUSAL = SidecarError("revision_refused", "the gate refuses r2: a.py:3: what", "mend it")
REFUSED = Outcome("refused", "r1", refusal=REFUSAL)
SETTLING = Outcome("settling", "r1")
PATIENCE_SECONDS = 15


@dataclass
class Run:
    """
    One loop with what it reports to.
    """

    sidecar: Script
    settings: CommonSettings
    health: Health = field(default_factory=Health)
    metrics: Metrics = field(default_factory=lambda: Metrics("box", "1", "r"))
    glances: int = 0
    loop: Loop = field(init=False)
    _is_late: bool = False

    def __call__(self) -> int:
        """
        Run the loop to its end; one that does not come is brought about by SIGTERM.
        """
        self.loop = Loop(self.sidecar, self.settings, self.health, self.metrics, self.glances)
        watchdog = threading.Timer(PATIENCE_SECONDS, self._end_late)
        watchdog.start()
        try:
            return self.loop.run()
        finally:
            watchdog.cancel()
            watchdog.join()
            assert not self._is_late, "the loop did not end"

    def _end_late(self) -> None:
        self._is_late = True
        send(signal.SIGTERM)

    def until_stopped(self) -> None:
        with pytest.raises(Stop):
            self()

    def count(self, result: str) -> float:
        labels = {"sidecar": "box", "result": result}
        return self.metrics.registry.get_sample_value("sidecar_cycles_total", labels) or 0

    def results(self) -> list[str]:
        return [cycle.result for cycle in reversed(self.health.past_cycles())]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "BASE_SECONDS", 0.02)
    monkeypatch.setattr(backoff, "FLOOR_SECONDS", 0.01)
    monkeypatch.setattr(backoff, "CAP_SECONDS", 0.1)
    monkeypatch.setattr(module, "WAITING_RETRY_SECONDS", 0.05)
    monkeypatch.setattr(module, "TIDY_SECONDS", 0.05)


def run(*steps: Any, **changes: Any) -> Run:
    """
    Describe a loop; settings as fields of `CommonSettings`, the interval an hour unless given.
    """
    return Run(Script(*steps), replace(settings_of(JITTER="0"), **changes))


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


def hear(log: Log, number: signal.Signals) -> None:
    """
    Send a signal and wait until the loop has heard it.
    """
    count = len(log.events("signal_received"))
    send(number)
    wait_until(
        lambda: len(log.events("signal_received")) > count, "the signal is heard", step_seconds=0
    )


def when_idle(one: Run, results: int, act: Callable[[], object]) -> threading.Thread:
    """
    Act from another thread once that many cycles were recorded.
    """

    def wait() -> None:
        wait_until(lambda: sum(map(one.count, RESULTS)) >= results, "the cycles", PATIENCE_SECONDS)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


RESULTS = ("changed", "unchanged", "waiting", "settling", "refused", "error")


# --- one-shot


def test_a_one_shot_ends_with_its_first_success(log: Log) -> None:
    for outcome in (CHANGED, UNCHANGED):
        one = run(outcome, one_shot=True)

        assert one() == EXIT_DONE
        assert one.sidecar.cycles == 1


def test_a_one_shot_tries_again_after_failures_and_while_another_owns_the_target(log: Log) -> None:
    one = run(DENIED, WAITING, DENIED, CHANGED, one_shot=True)

    assert one() == EXIT_DONE
    assert ["error", "waiting", "error", "changed"] == one.results()


def test_a_one_shot_gives_up_at_its_deadline_and_names_the_last_failure(log: Log) -> None:
    one = run(*[DENIED] * 1000, one_shot=True, one_shot_deadline_seconds=0.3, interval_seconds=0.1)
    began = time.monotonic()

    with pytest.raises(GaveUp) as caught:
        one()

    assert 0.3 <= time.monotonic() - began < 3
    assert caught.value.reason == "one_shot_deadline"
    assert caught.value.exit_code == 3
    assert caught.value.message == "access_denied: may not list"
    assert caught.value.advice == "allow it"


def test_a_cycle_that_gives_up_ends_the_loop(log: Log) -> None:
    one = run(DENIED, GaveUp("failure_limit", "too many", "look there"), CHANGED)

    with pytest.raises(GaveUp, match="too many"):
        one()

    assert ["error", "error"] == one.results()


def test_a_one_shot_that_never_gets_the_target_names_who_has_it(log: Log) -> None:
    waiting = Outcome("waiting", counts={"holder": "pid 7 on other-pod"})
    one = run(*[waiting] * 1000, one_shot=True, one_shot_deadline_seconds=0.2)

    with pytest.raises(GaveUp, match=r"another process keeps the target .*: pid 7 on other-pod"):
        one()


def test_a_one_shot_gives_up_at_its_deadline_while_a_cycle_hangs(log: Log) -> None:
    released = threading.Event()
    one = run(lambda _: waits(released), one_shot=True, one_shot_deadline_seconds=0.2)

    with pytest.raises(GaveUp, match="no success in time"):
        one()
    released.set()


def test_a_one_shot_goes_on_while_its_revision_is_refused_or_comes_to_rest(log: Log) -> None:
    one = run(SETTLING, REFUSED, REFUSED, UNCHANGED, one_shot=True, interval_seconds=0.1)

    assert one() == EXIT_DONE
    assert one.sidecar.cycles == 4


def test_a_one_shot_whose_revision_is_refused_gives_up_and_says_why(log: Log) -> None:
    one = run(*[REFUSED] * 1000, one_shot=True, one_shot_deadline_seconds=0.3, interval_seconds=0.1)

    with pytest.raises(GaveUp) as caught:
        one()

    assert ("one_shot_deadline", 3) == (caught.value.reason, caught.value.exit_code)
    assert "revision_refused: the gate refuses r2: a.py:3: what" == caught.value.message
    assert "mend it" == caught.value.advice


def test_a_one_shot_whose_source_never_comes_to_rest_says_so(log: Log) -> None:
    one = run(*[SETTLING] * 1000, one_shot=True, one_shot_deadline_seconds=0.3)

    with pytest.raises(GaveUp, match="has not come to rest in time"):
        one()


def test_a_one_shot_that_gives_up_names_what_its_cycle_waits_for(log: Log) -> None:
    released = threading.Event()

    def hang(fence: Fence) -> Outcome:
        fence.blame = SidecarError("kdc_hung", "no answer", "ask it")
        return waits(released)

    one = run(hang, one_shot=True, one_shot_deadline_seconds=0.2)

    with pytest.raises(GaveUp) as caught:
        one()
    released.set()

    assert ("one_shot_deadline", "kdc_hung: no answer", "ask it") == (
        caught.value.reason,
        caught.value.message,
        caught.value.advice,
    )


def waits(event: threading.Event) -> Outcome:
    assert event.wait(PATIENCE_SECONDS)
    return CHANGED


# --- the usual course


def test_cycles_follow_each_other_at_the_interval(log: Log) -> None:
    one = run(CHANGED, UNCHANGED, UNCHANGED, CHANGED, interval_seconds=0.1)
    began = time.monotonic()

    one.until_stopped()

    assert time.monotonic() - began >= 0.3
    assert (2, 2) == (one.count("changed"), one.count("unchanged"))
    assert len(one.sidecar.sessions) == 1


def test_the_first_cycle_does_not_wait(log: Log) -> None:
    began = time.monotonic()

    run().until_stopped()

    assert time.monotonic() - began < 1


def test_a_changed_cycle_is_one_line_at_info_and_an_unchanged_one_at_debug(log: Log) -> None:
    run(CHANGED, UNCHANGED, interval_seconds=0.1).until_stopped()

    changed, unchanged = log.events("cycle_finished")
    assert changed.pop("duration_seconds") >= 0
    assert {
        "level": "info",
        "result": "changed",
        "revision": "r1",
        "files_published": 1,
    }.items() <= (changed.items())
    assert ("debug", "unchanged") == (unchanged["level"], unchanged["result"])


def test_the_first_success_after_failures_is_told_at_info(log: Log) -> None:
    run(DENIED, DENIED, UNCHANGED, UNCHANGED, interval_seconds=0.1).until_stopped()

    first, second = log.events("cycle_finished")
    assert ("info", 2) == (first["level"], first["failures_before"])
    assert ("debug", 0) == (second["level"], second["failures_before"])


def test_metrics_tell_success_from_publish(log: Log) -> None:
    began = time.time()
    one = run(UNCHANGED)
    thread = when_idle(one, 1, lambda: send(signal.SIGTERM))
    assert one() == EXIT_DONE
    thread.join()

    def sample(name: str) -> float | None:
        return one.metrics.registry.get_sample_value(name, {"sidecar": "box"})

    assert (sample("sidecar_last_success_timestamp_seconds") or 0) >= began
    assert sample("sidecar_last_publish_timestamp_seconds") == 0
    assert sample("sidecar_cycle_duration_seconds_count") == 1


# --- failures


def test_a_failure_is_one_line_with_reason_and_advice(log: Log) -> None:
    one = run(DENIED)

    one.until_stopped()

    failed = log.events("cycle_failed")
    assert len(failed) == 1
    assert 0.01 <= failed[0].pop("retry_in_seconds") <= 0.04
    assert {
        "level": "warning",
        "reason": "access_denied",
        "error": "may not list",
        "advice": "allow it",
        "consecutive_failures": 1,
    }.items() <= failed[0].items()
    assert "exception" not in failed[0]
    assert one.health.last_error is not None
    assert one.health.last_error.reason == "access_denied"


def test_a_bug_in_a_cycle_is_a_failure_with_a_traceback(log: Log) -> None:
    one = run(ZeroDivisionError("by zero"), CHANGED, interval_seconds=0.1)

    one.until_stopped()

    failed = log.events("cycle_failed")[0]
    assert ("error", "bug") == (failed["level"], failed["reason"])
    assert failed["error"] == "ZeroDivisionError: by zero"
    assert "Traceback" in failed["exception"] and "recording.py" in failed["exception"]
    assert ["error", "changed"] == one.results()


def test_a_failure_is_tried_again_long_before_the_interval(log: Log) -> None:
    one = run(DENIED, DENIED, DENIED, CHANGED)
    began = time.monotonic()
    thread = when_idle(one, 4, lambda: send(signal.SIGTERM))
    assert one() == EXIT_DONE
    thread.join()

    assert time.monotonic() - began < 5
    assert [1, 2, 3] == [event["consecutive_failures"] for event in log.events("cycle_failed")]


def test_a_failure_may_have_less_time_than_the_backoff(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backoff, "FLOOR_SECONDS", 600.0)
    urgent = SidecarError("kdc_unreachable", "refused")
    urgent.retry_within_seconds = 0.05

    one = run(urgent, CHANGED, interval_seconds=3600)
    thread = when_idle(one, 2, lambda: send(signal.SIGTERM))

    assert one() == EXIT_DONE
    thread.join()
    assert 0.05 == log.events("cycle_failed")[0]["retry_in_seconds"]


def test_waits_grow_with_failures_and_a_success_resets_them(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def draw(low: float, high: float) -> float:
        asked.append(round(high * 1000))
        return low

    monkeypatch.setattr(backoff.backoff_seconds, "__defaults__", (draw,))

    run(DENIED, DENIED, DENIED, CHANGED, DENIED, interval_seconds=0.1).until_stopped()

    assert asked == [40, 80, 100, 40]


def test_the_usual_interval_comes_back_after_a_failure(log: Log) -> None:
    one = run(DENIED, CHANGED)
    left: list[float | None] = []

    def look() -> None:
        wait_until(lambda: (one.health.next_cycle_in_seconds or 0) > 1, "the next cycle is set")
        left.append(one.health.next_cycle_in_seconds)
        send(signal.SIGTERM)

    thread = when_idle(one, 2, look)
    assert one() == EXIT_DONE
    thread.join()

    assert left[0] == pytest.approx(3600, abs=5)
    assert (0, None) == (one.health.consecutive_failures, one.health.last_error)


def test_gives_up_after_the_limit_of_failures_in_a_row(log: Log) -> None:
    one = run(DENIED, DENIED, CHANGED, *[DENIED] * 9, max_failures=3, interval_seconds=0.1)

    with pytest.raises(GaveUp) as caught:
        one()

    assert one.sidecar.cycles == 6
    assert ("failure_limit", 3) == (caught.value.reason, caught.value.exit_code)
    assert caught.value.message == "access_denied: may not list"


def test_keeps_trying_without_a_limit(log: Log) -> None:
    one = run(*[DENIED] * 12, interval_seconds=0.1)

    one.until_stopped()

    assert one.count("error") == 12


def test_waiting_for_the_target_is_neither_success_nor_failure(log: Log) -> None:
    one = run(WAITING, WAITING, WAITING, CHANGED)
    began = time.monotonic()
    thread = when_idle(one, 4, lambda: send(signal.SIGTERM))

    assert one() == EXIT_DONE
    thread.join()

    assert time.monotonic() - began < 5
    assert (3, 1, 0) == (one.count("waiting"), one.count("changed"), one.count("error"))
    assert log.events("cycle_failed") == []
    assert len(log.events("cycle_finished")) == 1


def test_a_source_that_comes_to_rest_is_looked_at_again_soon(log: Log) -> None:
    one = run(SETTLING, SETTLING, CHANGED)
    thread = when_idle(one, 3, lambda: send(signal.SIGTERM))

    assert one() == EXIT_DONE
    thread.join()

    assert ["settling", "changed"] == one.results()
    assert (2, 0) == (one.count("settling"), one.count("error"))
    assert log.events("cycle_failed") == []
    assert ["changed"] == [event["result"] for event in log.events("cycle_finished")]


def test_a_refused_revision_is_no_failure_and_waits_for_the_usual_interval(log: Log) -> None:
    one = run(DENIED, REFUSED, max_failures=2)
    left: list[float | None] = []

    def look() -> None:
        wait_until(lambda: (one.health.next_cycle_in_seconds or 0) > 1, "the next cycle is set")
        left.append(one.health.next_cycle_in_seconds)
        send(signal.SIGTERM)

    thread = when_idle(one, 2, look)
    assert one() == EXIT_DONE
    thread.join()

    assert left[0] == pytest.approx(3600, abs=15)
    assert 0 == one.health.consecutive_failures
    error = one.health.last_error
    assert error is not None
    assert ("revision_refused", REFUSAL.message, "mend it") == (
        error.reason,
        error.message,
        error.advice,
    )
    past = one.health.past_cycles()[0]
    assert ("refused", "revision_refused") == (past.result, past.reason)
    assert 1 == len(log.events("cycle_failed"))


def test_refusals_never_add_up_to_the_limit_of_failures(log: Log) -> None:
    one = run(*[REFUSED] * 5, DENIED, REFUSED, DENIED, max_failures=2, interval_seconds=0.1)

    one.until_stopped()

    assert (6, 2) == (one.count("refused"), one.count("error"))


def test_refused_cycles_are_logged_at_debug_but_the_first_after_failures(log: Log) -> None:
    run(REFUSED, DENIED, REFUSED, interval_seconds=0.1).until_stopped()

    assert [("debug", "refused", 0), ("info", "refused", 1)] == [
        (event["level"], event["result"], event["failures_before"])
        for event in log.events("cycle_finished")
    ]


@pytest.mark.parametrize("outcome", [REFUSED, SETTLING], ids=lambda outcome: outcome.result)
def test_what_is_not_published_is_no_success(log: Log, outcome: Outcome) -> None:
    """
    The age of the last success is what people alert on.
    """
    one = run(outcome, interval_seconds=0.1)

    one.until_stopped()

    for name in ("success", "publish"):
        stamp = f"sidecar_last_{name}_timestamp_seconds"
        assert 0 == one.metrics.registry.get_sample_value(stamp, {"sidecar": "box"})


# --- timeout


def test_a_cycle_that_takes_too_long_is_abandoned_and_can_publish_nothing(log: Log) -> None:
    came: list[object] = []
    is_over = threading.Event()

    def late(fence: Fence) -> Outcome:
        revoked = threading.Event()
        fence.on_revoke(revoked.set)
        assert revoked.wait(PATIENCE_SECONDS)
        try:
            with fence:
                came.append("published")
        except CycleAbandoned as error:
            came.append(error)
        is_over.set()
        return CHANGED

    def after(_: Fence) -> Outcome:
        assert is_over.wait(PATIENCE_SECONDS)
        return UNCHANGED

    one = run(late, after, timeout_seconds=0.1)
    one.health.expect_beat(60)

    thread = when_idle(one, 2, lambda: send(signal.SIGTERM))
    assert one() == EXIT_DONE
    thread.join()

    assert [CycleAbandoned] == [type(one) for one in came]
    assert ["error", "unchanged"] == one.results()
    assert (0, 1) == (one.count("changed"), one.count("error"))
    assert log.events("cycle_failed")[0]["reason"] == "cycle_timeout"
    assert log.events("cycle_failed")[0]["error"] == "the cycle was abandoned after 0.1 s"


def test_an_abandoned_cycle_fails_for_what_it_was_waiting_for(log: Log) -> None:
    released = threading.Event()

    def hang(fence: Fence) -> Outcome:
        fence.blame = SidecarError("kdc_hung", "no answer", "ask it")
        return waits(released)

    one = run(hang, timeout_seconds=0.1)

    one.until_stopped()
    released.set()

    failed = log.events("cycle_failed")[0]
    assert ("kdc_hung", "no answer", "ask it") == (
        failed["reason"],
        failed["error"],
        failed["advice"],
    )


def test_a_cycle_that_comes_back_after_its_end_keeps_its_thread(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backoff, "FLOOR_SECONDS", 0.5)

    def obeys(fence: Fence) -> Outcome:
        revoked = threading.Event()
        fence.on_revoke(revoked.set)
        assert revoked.wait(PATIENCE_SECONDS)
        raise CycleAbandoned

    one = run(obeys, obeys, obeys, timeout_seconds=0.1)

    one.until_stopped()

    assert one.count("error") == 3
    assert log.events("cycle_threads_stuck") == []
    assert len(one.sidecar.sessions) == 1


def test_a_new_thread_takes_over_from_one_that_hangs(log: Log) -> None:
    released = threading.Event()
    one = run(lambda _: waits(released), CHANGED, timeout_seconds=0.05)
    thread = when_idle(one, 2, lambda: send(signal.SIGTERM))

    assert one() == EXIT_DONE
    thread.join()
    released.set()

    assert ["error", "changed"] == one.results()
    assert len(one.sidecar.sessions) == 2


def test_threads_that_hang_are_limited_and_cycles_go_on_when_they_come_back(log: Log) -> None:
    released = threading.Event()
    hangs = [lambda _: waits(released)] * module.STUCK_THREADS
    one = run(*hangs, CHANGED, timeout_seconds=0.05, interval_seconds=0.1)
    sidecar = one.sidecar

    def release() -> None:
        wait_until(lambda: log.events("cycle_threads_stuck"), "threads are stuck", PATIENCE_SECONDS)
        assert sidecar.cycles == module.STUCK_THREADS
        released.set()

    thread = threading.Thread(target=release)
    thread.start()
    one.until_stopped()
    thread.join()

    assert log.events("cycle_threads_stuck")[0]["threads"] == module.STUCK_THREADS
    assert ["error"] * module.STUCK_THREADS + ["changed"] == one.results()


def test_threads_that_come_back_late_do_not_pile_up(log: Log) -> None:
    def cycle_threads() -> int:
        return sum(thread.name == "cycle" for thread in threading.enumerate())

    before = cycle_threads()
    events = [threading.Event() for _ in range(6)]

    def late(event: threading.Event) -> Callable[[Fence], Outcome]:
        return lambda _: waits(event)

    def free(event: threading.Event) -> Callable[[Fence], Outcome]:
        def step(_: Fence) -> Outcome:
            event.set()
            return CHANGED

        return step

    steps = [step for event in events for step in (late(event), free(event))]
    one = run(*steps, timeout_seconds=0.05, interval_seconds=0.1)

    one.until_stopped()

    assert one.count("error") == 6
    wait_until(lambda: cycle_threads() - before <= 1, "the others have ended")
    assert [False] == [
        session.is_closed for session in one.sidecar.sessions if not session.is_closed
    ]
    assert len(one.sidecar.sessions) == 7


def test_liveness_notices_a_worker_that_hangs(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIVENESS_GRACE_SECONDS", 1.0)
    released = threading.Event()
    hangs = [lambda _: waits(released)] * module.STUCK_THREADS
    one = run(*hangs, timeout_seconds=0.05, interval_seconds=0.1)

    def look() -> None:
        wait_until(lambda: not one.health.is_alive, "it is not alive", PATIENCE_SECONDS)
        released.set()

    thread = threading.Thread(target=look)
    thread.start()
    one.until_stopped()
    thread.join()

    assert one.health.is_alive


def test_liveness_does_not_notice_failures_and_idle_hours(log: Log) -> None:
    later = 0.0
    one = run(DENIED, CHANGED)
    one.health = Health(lambda: time.monotonic() + later)
    thread = when_idle(one, 2, lambda: send(signal.SIGTERM))
    assert one() == EXIT_DONE
    thread.join()

    later = 3600 + one.settings.timeout_seconds
    assert one.health.is_alive
    later += module.LIVENESS_GRACE_SECONDS + 1
    assert not one.health.is_alive


# --- signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_success_while_idle(log: Log, number: signal.Signals) -> None:
    one = run(CHANGED)
    thread = when_idle(one, 1, lambda: send(number))

    assert one() == EXIT_DONE
    thread.join()

    assert [number.name] == [event["signal"] for event in log.events("signal_received")]
    assert one.sidecar.cycles == 1


def test_a_signal_ends_it_during_a_cycle_which_can_publish_nothing_more(log: Log) -> None:
    came: list[str] = []
    is_over = threading.Event()

    def cycle(fence: Fence) -> Outcome:
        revoked = threading.Event()
        fence.on_revoke(revoked.set)
        send(signal.SIGTERM)
        assert revoked.wait(PATIENCE_SECONDS)
        try:
            with fence:
                came.append("published")
        except CycleAbandoned:
            came.append("abandoned")
        is_over.set()
        return CHANGED

    one = run(cycle)

    assert one() == EXIT_DONE
    assert is_over.wait(PATIENCE_SECONDS)
    assert came == ["abandoned"]
    assert one.results() == []


def test_the_handlers_of_before_come_back(log: Log) -> None:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]

    run(CHANGED, one_shot=True)()
    run(DENIED, interval_seconds=0.1).until_stopped()

    assert before == [signal.getsignal(number) for number in numbers]


def test_sighup_while_idle_is_a_cycle_now(log: Log) -> None:
    one = run(CHANGED)
    thread = when_idle(one, 1, lambda: send(signal.SIGHUP))
    began = time.monotonic()

    one.until_stopped()
    thread.join()

    assert time.monotonic() - began < 5
    assert one.sidecar.cycles == 2


def test_sighup_after_a_failure_shortens_the_wait(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backoff, "FLOOR_SECONDS", 600.0)
    one = run(DENIED)
    thread = when_idle(one, 1, lambda: send(signal.SIGHUP))
    began = time.monotonic()

    one.until_stopped()
    thread.join()

    assert time.monotonic() - began < 5


def test_a_cycle_knows_that_a_person_asked_for_it(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backoff, "FLOOR_SECONDS", 0.5)
    asked: list[bool] = []

    def cycle(fence: Fence) -> Outcome:
        asked.append(fence.is_asked_for)
        if len(asked) == 1:
            hear(log, signal.SIGHUP)
        raise DENIED

    run(cycle, cycle, cycle).until_stopped()

    assert [False, True, False] == asked


def test_a_sidecar_that_wakes_the_loop_shortens_the_wait(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Nobody asked for that cycle: it is as every other.
    """
    monkeypatch.setattr(backoff, "FLOOR_SECONDS", 600.0)
    asked: list[bool] = []

    def cycle(fence: Fence) -> Outcome:
        asked.append(fence.is_asked_for)
        return CHANGED

    one = run(DENIED, cycle)
    thread = when_idle(one, 1, lambda: Loop.wake(one.loop))
    second = when_idle(one, 2, lambda: send(signal.SIGTERM))
    began = time.monotonic()

    assert one() == EXIT_DONE
    thread.join()
    second.join()

    assert time.monotonic() - began < 5
    assert [False] == asked


def test_sighup_during_a_cycle_is_one_more_cycle_after_it(log: Log) -> None:
    """
    What changed after the listing of the running cycle would else be seen an interval later.
    """

    def cycle(_: Fence) -> Outcome:
        for _ in range(3):
            hear(log, signal.SIGHUP)
        return CHANGED

    one = run(cycle, UNCHANGED)

    def look() -> None:
        wait_until(lambda: (one.health.next_cycle_in_seconds or 0) > 1, "the next cycle is set")
        send(signal.SIGTERM)

    thread = when_idle(one, 2, look)
    assert one() == EXIT_DONE
    thread.join()

    assert ["changed", "unchanged"] == one.results()


def test_sighup_during_a_cycle_that_fails_is_one_more_cycle_too(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backoff, "FLOOR_SECONDS", 600.0)

    def cycle(_: Fence) -> Outcome:
        hear(log, signal.SIGHUP)
        raise DENIED

    one = run(cycle)
    began = time.monotonic()

    one.until_stopped()

    assert time.monotonic() - began < 5
    assert one.sidecar.cycles == 2


def test_no_signal_is_slept_through(log: Log) -> None:
    """
    A signal that arrives right before the main thread goes to sleep must wake it.
    """

    def cycle(_: Fence) -> Outcome:
        for _ in range(150):
            began = time.monotonic()
            hear(log, signal.SIGHUP)
            slowest.append(time.monotonic() - began)
        return CHANGED

    slowest: list[float] = []
    one = run(cycle)

    one.until_stopped()

    assert len(slowest) == 150
    assert max(slowest) < 1


# --- whole processes


PROGRAM = """
import datetime, os, sys, threading, time
from dataclasses import replace

{before}

from sidecar_runtime import loop as module
from sidecar_runtime.health import Health, Outcome
from sidecar_runtime.loop import Loop
from sidecar_runtime.metrics import Metrics
from sidecar_runtime.process import run_main
from sidecar_runtime import logs
from tests.runtime.recording import CHANGED, UNCHANGED, WAITING, Script, settings_of

{body}

def main():
    logs.configure("debug", "json")
    settings = replace(settings_of(JITTER="0"), **changes)
    return Loop(Script(*steps), settings, Health(), Metrics("box", "1", "r")).run()

run_main(main)
"""


def start(body: str, before: str = "") -> subprocess.Popen[bytes]:
    """
    Run a program around a loop; its cycles print what happens.
    """
    text = PROGRAM.format(before=textwrap.dedent(before), body=textwrap.dedent(body))
    return subprocess.Popen(
        [sys.executable, "-u", "-c", text],
        cwd=Path(__file__).parents[2],
        env={"PATH": "/usr/bin:/bin"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def read_until(process: subprocess.Popen[bytes], text: str) -> list[str]:
    """
    Return the lines up to the one with this text.
    """
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line.decode())
        if text in lines[-1]:
            return lines
    pytest.fail(f"ended without {text!r}:\n{''.join(lines)}")


HANGS = """
changes = {}
reading, _writing = os.pipe()

def hang(fence):
    print("hanging", flush=True)
    os.read(reading, 1)      # for ever, in the kernel
    return CHANGED

def hang_in_a_publish(fence):
    with fence:
        return hang(fence)

def hang_and_hold_the_interpreter(fence):
    print("hanging", flush=True)
    while True:
        sum(range(1000))
"""


@pytest.mark.parametrize("how", ["hang", "hang_in_a_publish", "hang_and_hold_the_interpreter"])
def test_sigterm_ends_the_process_within_a_second_while_a_cycle_hangs(how: str) -> None:
    with start(f"{HANGS}\nsteps = [{how}]") as process:
        try:
            read_until(process, "hanging")
            began = time.monotonic()
            process.terminate()
            code = process.wait(20)
            seconds = time.monotonic() - began
        finally:
            process.kill()

    assert code == 0
    assert seconds <= 1.0


SHIFTED = """
real = datetime.datetime
shift = datetime.timedelta(0)

class Shifted(real):
    @classmethod
    def now(cls, tz=None):
        return real.now(tz) + shift

datetime.datetime = Shifted     # before the scheduler and the loop import it
"""


@pytest.mark.parametrize("days", [-1, 1, -20_000])
def test_goes_on_when_the_wall_clock_is_set(days: int) -> None:
    """
    APScheduler goes by the wall clock; set back by a day, it would be silent for a day.
    """
    body = f"""
    changes = {{"interval_seconds": 0.1}}
    module.CLOCK_GRACE_SECONDS = 0.2

    def set_clock(fence):
        global shift
        shift = datetime.timedelta(days={days})
        print("clock set", flush=True)
        return CHANGED

    def after(fence):
        print("went on", flush=True)
        return UNCHANGED

    steps = [UNCHANGED, set_clock, after, after, after, after]
    """
    began = time.monotonic()
    with start(body, SHIFTED) as process:
        try:
            out, _ = process.communicate(timeout=20)
        finally:
            process.kill()

    text = out.decode()
    assert text.count("went on") == 4, text
    assert ("trigger_overdue" in text) == (days < 0)
    assert text.count("trigger_overdue") <= 1
    assert time.monotonic() - began < 15


# --- glances


class Glancer(Script):
    """
    A script whose session sees nothing new at a glance, but for the first one.
    """

    def begin(self) -> ScriptSession:
        session = super().begin()
        self.glances = 0

        def glance() -> bool:
            self.glances += 1
            return self.glances > 1

        session.glance = glance  # type: ignore[attr-defined]
        session.can_wait_for_news = False  # type: ignore[attr-defined]
        return session


def test_glances_count_as_cycles_and_news_starts_one() -> None:
    script = Glancer(CHANGED, UNCHANGED)
    settings = replace(settings_of(JITTER="0"), interval_seconds=0.1)
    glanced = Run(script, settings, glances=15)
    glanced.until_stopped()

    # The first glance saw news, and the second cycle came; quiet ones then, and a third cycle.
    quiet = script.glances - 1
    assert (3, 1, 1 + quiet) == (
        script.cycles,
        glanced.count("changed"),
        glanced.count("unchanged"),
    )
    assert 1 <= quiet <= 15
    durations = "sidecar_cycle_duration_seconds_count"
    labels = {"sidecar": "box"}
    assert 3 + quiet == glanced.metrics.registry.get_sample_value(durations, labels)


def test_after_a_refused_cycle_the_next_one_comes_at_its_time() -> None:
    settings = replace(settings_of(JITTER="0"), interval_seconds=0.1)
    glanced = Run(Glancer(CHANGED, REFUSED, REFUSED), settings, glances=1_000)
    glanced.until_stopped()

    assert 2 == glanced.count("refused")
