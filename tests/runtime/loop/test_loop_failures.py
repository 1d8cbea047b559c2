"""
The loop after failures, and after cycles that are neither a success nor a failure.
"""

import time
from dataclasses import replace
from operator import itemgetter

import pytest

from sidecar_runtime.errors import GaveUp, SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.health import LastError, Outcome, PastCycle
from sidecar_runtime.http.endpoint import registry_of
from tests.runtime.loop.looping import (
    DENIED,
    QUICK,
    REFUSAL,
    REFUSED,
    SETTLING,
    failing_for,
    run,
    seconds_left,
)
from tests.runtime.recording import CHANGED, WAITING, Log
from tests.support.raising import raised


def test_a_failure_is_logged_in_one_line_with_reason_and_advice(log: Log) -> None:
    longest = QUICK.backoff._replace(draw=lambda _, high: high)
    one = run(DENIED, pace=replace(QUICK, backoff=longest))

    one.until_stopped()

    failed = log.events("cycle_failed")
    assert len(failed) == 1
    assert {
        "level": "warning",
        "retry_in_seconds": 0.04,
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


def test_a_failure_can_shorten_the_backoff(log: Log) -> None:
    urgent = SidecarError("kdc_unreachable", "refused")
    urgent.retry_within_seconds = 0.05

    one = run(urgent, CHANGED, pace=failing_for(600))

    one.until(2)

    assert 0.05 == log.events("cycle_failed")[0]["retry_in_seconds"]


def test_backoff_grows_with_failures_and_a_success_resets_it(log: Log) -> None:
    asked: list[int] = []

    def draw(low: float, high: float) -> float:
        asked.append(round(high * 1000))
        return low

    pace = replace(QUICK, backoff=QUICK.backoff._replace(draw=draw))

    run(DENIED, DENIED, DENIED, CHANGED, DENIED, pace=pace, interval_seconds=0.1).until_stopped()

    assert asked == [40, 80, 100, 40]


@pytest.mark.parametrize("end", [CHANGED, Outcome("partial", "r1")], ids=["all", "a part"])
def test_the_usual_interval_applies_again_after_a_failure(log: Log, end: Outcome) -> None:
    one = run(DENIED, end)

    left_seconds = seconds_left(one, 2)

    interval_seconds = one.settings.interval_seconds
    assert interval_seconds / 2 < left_seconds <= interval_seconds
    assert (0, None) == (one.health.consecutive_failures, one.health.last_error)


def test_gives_up_after_the_limit_of_consecutive_failures(log: Log) -> None:
    one = run(DENIED, DENIED, CHANGED, *[DENIED] * 9, max_failures=3, interval_seconds=0.1)

    error = raised(GaveUp, one)

    assert one.sidecar.cycles == 6
    assert ("failure_limit", 3) == (error.reason, error.exit_code)
    assert error.message == "access_denied: may not list"


def test_waiting_for_the_target_is_neither_success_nor_failure(log: Log) -> None:
    one = run(WAITING, WAITING, WAITING, CHANGED)

    one.until(4)

    assert (3, 1, 0) == (one.count("waiting"), one.count("changed"), one.count("error"))
    assert log.events("cycle_failed") == []
    assert len(log.events("cycle_finished")) == 1


@pytest.mark.parametrize("outcome", [SETTLING, WAITING], ids=lambda outcome: outcome.result)
def test_warns_once_about_the_problem_of_a_cycle_that_waits(log: Log, outcome: Outcome) -> None:
    waiting = outcome._replace(problem=SidecarError("unsettled", "it changes", "leave it"))
    one = run(outcome, waiting, waiting)

    one.until(3)

    first, again = log.events("cycle_finished")
    said = itemgetter("result", "reason", "advice")(first)
    assert (outcome.result, "unsettled", "leave it") == said
    assert ("warning", "debug") == (first["level"], again["level"])


def test_a_settling_source_is_checked_again_soon(log: Log) -> None:
    one = run(SETTLING, SETTLING, CHANGED)

    one.until(3)

    assert ["settling", "changed"] == one.results()
    assert (2, 0) == (one.count("settling"), one.count("error"))
    assert log.events("cycle_failed") == []
    assert ["changed"] == [event["result"] for event in log.events("cycle_finished")]


def test_a_refused_revision_is_not_a_failure_and_keeps_the_interval(log: Log) -> None:
    one = run(DENIED, REFUSED, max_failures=2)

    left_seconds = seconds_left(one, 2)

    interval_seconds = one.settings.interval_seconds
    assert interval_seconds / 2 < left_seconds <= interval_seconds
    assert 0 == one.health.consecutive_failures
    error = one.health.last_error
    assert error is not None
    assert "revision_refused" == error.reason
    assert (REFUSAL.message, "fix it") == (error.message, error.advice)
    past = one.health.past_cycles()[0]
    assert ("refused", "revision_refused") == (past.result, past.reason)
    assert 1 == len(log.events("cycle_failed"))


def test_refusals_do_not_count_toward_the_failure_limit(log: Log) -> None:
    one = run(*[REFUSED] * 5, DENIED, REFUSED, DENIED, max_failures=2, interval_seconds=0.1)

    one.until_stopped()

    assert (6, 2) == (one.count("refused"), one.count("error"))


def test_logs_refused_cycles_at_debug_except_the_first_after_failures(log: Log) -> None:
    run(REFUSED, DENIED, REFUSED, interval_seconds=0.1).until_stopped()

    assert [("debug", "refused", 0), ("info", "refused", 1)] == [
        (event["level"], event["result"], event["failures_before"])
        for event in log.events("cycle_finished")
    ]


@pytest.mark.parametrize("outcome", [SETTLING, WAITING], ids=lambda outcome: outcome.result)
def test_logs_the_end_of_failures_when_the_next_cycle_waits(log: Log, outcome: Outcome) -> None:
    run(DENIED, DENIED, outcome, outcome, CHANGED, interval_seconds=0.1).until_stopped()

    assert [("info", outcome.result, 2), ("info", "changed", 0)] == [
        (event["level"], event["result"], event["failures_before"])
        for event in log.events("cycle_finished")
    ]


def test_a_refused_cycle_that_published_a_fallback_is_a_publish(log: Log) -> None:
    one = run(REFUSED._replace(counts={"files_published": 2}), interval_seconds=0.1)

    one.until_stopped()

    (event,) = log.events("cycle_finished")
    assert ("info", "refused", 2) == itemgetter("level", "result", "files_published")(event)
    stamp = "sidecar_last_publish_timestamp_seconds"
    assert registry_of(one.metrics.families).get_sample_value(stamp, {"sidecar": "box"})


def test_the_last_error_has_the_time_of_its_latest_occurrence(log: Log) -> None:
    began: list[float] = []

    def later(_: Fence) -> Outcome:
        began.append(time.time())
        return REFUSED

    one = run(REFUSED, later, interval_seconds=0.1)

    one.until(2)

    assert one.health.last_error and one.health.failing_since
    assert one.health.failing_since <= began[0] <= one.health.last_error.at


def test_a_trigger_that_fires_as_a_cycle_fails_does_not_end_the_backoff(log: Log) -> None:
    """It would also overwrite the time of the next cycle, which then seems overdue."""
    one = run(DENIED, CHANGED, pace=failing_for(600))
    record = one.health.record

    def trigger(cycle: PastCycle, error: LastError | None) -> None:
        one.loop._events.put("trigger")
        record(cycle, error)

    one.health.record = trigger  # type: ignore[method-assign]

    one.until(1)

    assert 1 == one.sidecar.cycles


@pytest.mark.parametrize("outcome", [REFUSED, SETTLING], ids=lambda outcome: outcome.result)
def test_refused_and_settling_cycles_update_no_timestamp(log: Log, outcome: Outcome) -> None:
    """Alerts use the age of the last success."""
    one = run(outcome, interval_seconds=0.1)

    one.until_stopped()

    for name in ("success", "publish"):
        stamp = f"sidecar_last_{name}_timestamp_seconds"
        assert 0 == registry_of(one.metrics.families).get_sample_value(stamp, {"sidecar": "box"})
