"""
The loop after failures, and after cycles that are neither a success nor a failure.
"""

import signal
import threading

import pytest

from sidecar_runtime.errors import GaveUp, SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.health import Outcome
from sidecar_runtime.loop import Idle, backoff_seconds
from tests.runtime.loop.looping import (
    DENIED,
    QUICK,
    SETTLING,
    failing_for,
    run,
    send,
)
from tests.runtime.recording import CHANGED, WAITING, Log
from tests.support.raising import raised


def test_a_failure_is_logged_in_one_line_with_reason_and_advice(log: Log) -> None:
    one = run(DENIED)

    one.until_stopped()

    failed = log.events("cycle_failed")
    assert len(failed) == 1
    assert {
        "level": "warning",
        "reason": "access_denied",
        "error": "may not list",
        "advice": "allow it",
        "consecutive_failures": 1,
        "retry_in_seconds": 0.02,
    }.items() <= failed[0].items()
    assert "exception" not in failed[0]
    assert one.health.last_error is not None
    assert one.health.last_error.reason == "access_denied"


@pytest.mark.parametrize(
    "end", [ZeroDivisionError("by zero"), SystemExit(), KeyboardInterrupt()], ids=repr
)
def test_whatever_a_cycle_raises_is_a_failure_with_a_traceback(
    log: Log, end: BaseException
) -> None:
    one = run(end, CHANGED, interval_seconds=0.1)

    one.until_stopped()

    failed = log.events("cycle_failed")[0]
    assert ("error", "bug") == (failed["level"], failed["reason"])
    assert failed["error"] == f"{type(end).__name__}: {end}"
    assert "Traceback" in failed["exception"] and "recording.py" in failed["exception"]
    assert ["error", "changed"] == one.results()


def refuse_threads(patch: pytest.MonkeyPatch, name: str, count: int) -> None:
    """Let that many threads of this name fail to start."""
    start, left = threading.Thread.start, [None] * count

    def limited(thread: threading.Thread) -> None:
        if thread.name == name and left:
            left.pop()
            raise RuntimeError("can't start new thread")
        start(thread)

    patch.setattr(threading.Thread, "start", limited)


def test_a_thread_that_cannot_be_started_is_a_failure_with_backoff(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_threads(monkeypatch, "cycle", 2)
    one = run(CHANGED)

    one.until(3)

    first, second = log.events("cycle_failed")
    assert ("process_limit", 1, 2) == (
        first["reason"],
        first["consecutive_failures"],
        second["consecutive_failures"],
    )
    assert "podPidsLimit" in first["advice"]
    assert ["error", "error", "changed"] == one.results()


@pytest.mark.parametrize("is_after", [False, True], ids=["during the cycle", "after it"])
def test_wake_cannot_end_the_wait_after_a_failure_that_its_sidecar_does_not_know(
    log: Log, *, is_after: bool
) -> None:
    """It would ask for the next cycle again and again: nothing has noted that this one failed."""

    def cycle(_: Fence) -> Outcome:
        one.loop.wake()
        raise ZeroDivisionError

    one = run(cycle, CHANGED, pace=failing_for(600))

    def ask() -> None:
        if is_after:
            for _turn in range(50):
                one.loop.wake()
        send(signal.SIGTERM)

    one.until(1, ask)

    assert 1 == one.sidecar.cycles


def test_a_failure_can_shorten_the_backoff(log: Log) -> None:
    urgent = SidecarError("kdc_unreachable", "refused")
    urgent.retry_within_seconds = 0.05

    one = run(urgent, CHANGED, pace=failing_for(600))

    one.until(2)

    assert 0.05 == log.events("cycle_failed")[0]["retry_in_seconds"]


def test_backoff_grows_with_failures_and_a_success_resets_it(log: Log) -> None:
    asked: list[tuple[int, float]] = []

    def backoff(failures: int, interval_seconds: float) -> float:
        asked.append((failures, interval_seconds))
        return 0.01

    pace = QUICK._replace(backoff=backoff)

    run(DENIED, DENIED, DENIED, CHANGED, DENIED, pace=pace, interval_seconds=0.1).until_stopped()

    assert asked == [(1, 0.1), (2, 0.1), (3, 0.1), (1, 0.1)]


def test_gives_up_after_the_limit_of_consecutive_failures(log: Log) -> None:
    one = run(DENIED, DENIED, CHANGED, *[DENIED] * 9, max_failures=3, interval_seconds=0.1)

    error = raised(GaveUp, one)

    assert one.sidecar.cycles == 6
    assert ("failure_limit", 3) == (error.reason, error.exit_code)
    assert error.message == "access_denied: may not list"


@pytest.mark.parametrize("outcome", [SETTLING, WAITING], ids=lambda outcome: outcome.result)
def test_warns_once_about_the_problem_of_a_cycle_that_waits(log: Log, outcome: Outcome) -> None:
    waiting = outcome._replace(problem=SidecarError("unsettled", "it changes", "leave it"))
    one = run(outcome, waiting, waiting)

    one.until(3)

    (said,) = log.events("cycle_finished")
    assert ("warning", outcome.result) == (said["level"], said["result"])
    assert ("unsettled", "leave it") == (said["reason"], said["advice"])


def test_a_trigger_that_fires_as_a_cycle_fails_does_not_end_the_backoff(log: Log) -> None:
    """It would also overwrite the time of the next cycle, which then seems overdue."""
    one = run(DENIED, CHANGED, pace=failing_for(600))
    record = one.health.record

    def trigger(outcome: Outcome, seconds: float) -> None:
        one.loop._events.put(Idle(0.0))
        record(outcome, seconds)

    one.health.record = trigger  # type: ignore[method-assign]

    one.until(1)

    assert 1 == one.sidecar.cycles


# --- backoff


def test_backoff_doubles_with_each_failure_up_to_a_minute_or_the_interval(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("random.uniform", lambda _, high: high)

    assert [2, 4, 8, 16, 32, 60, 60] == [backoff_seconds(n, 10) for n in range(1, 8)]
    assert [0.4, 0.8, 1.6] == [backoff_seconds(n, 0.2) for n in range(1, 4)]
    assert [60, 3600] == [backoff_seconds(100, 10), backoff_seconds(100, 3600)]
