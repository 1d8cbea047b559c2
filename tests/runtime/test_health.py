"""
The heartbeat, the past cycles and the last error.
"""

import threading
from itertools import count
from typing import Any, get_args

import pytest

from sidecar_runtime.health import PAST_CYCLES, QUIET, Health, LastError, Outcome, PastCycle, Result
from tests.support.machine.clocks import Clock

ERROR = LastError("access_denied", "may not", "allow it", 5.0)


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(clock)


def cycle(result: Result, started_at: float = 0.0) -> PastCycle:
    return PastCycle(started_at, 0.1, result, "", {})


def test_is_alive_before_the_first_cycle_has_ended(health: Health) -> None:
    assert health.is_alive
    assert health.past_cycles() == []
    assert health.next_cycle_in_seconds is None


def test_is_alive_while_the_heartbeat_is_younger_than_the_limit(
    health: Health, clock: Clock
) -> None:
    health.beat()
    health.expect_beat(30)

    clock.seconds += 29.5
    assert health.is_alive
    clock.seconds += 0.5
    assert not health.is_alive
    assert health.beat_age_seconds == 30


def test_only_a_heartbeat_makes_it_alive_again(health: Health, clock: Clock) -> None:
    health.expect_beat(30)
    clock.seconds += 31

    health.record(cycle("error"), ERROR)
    health.expect_cycle(1)
    assert not health.is_alive
    health.beat()
    assert health.is_alive


def test_a_success_resets_the_failures(health: Health) -> None:
    health.record(cycle("error"), ERROR)
    health.record(cycle("error"), ERROR)
    assert (2, ERROR) == (health.consecutive_failures, health.last_error)

    health.record(cycle("unchanged"), None)

    assert (0, None) == (health.consecutive_failures, health.last_error)


def test_past_cycles_are_bounded_and_newest_first(health: Health) -> None:
    for number in range(PAST_CYCLES + 5):
        health.record(cycle("changed", float(number)), None)

    past = health.past_cycles()
    assert len(past) == PAST_CYCLES
    assert past[0].started_at == PAST_CYCLES + 4
    assert past[-1].started_at == 5


def test_different_quiet_cycles_each_have_a_line(health: Health) -> None:
    results: list[Result] = ["settling", "refused", "unchanged", "refused", "refused", "waiting"]
    for result in results:
        health.record(cycle(result), None)

    expected = ["waiting", "refused", "unchanged", "refused", "settling"]
    assert expected == [one.result for one in health.past_cycles()]


@pytest.mark.parametrize("result", QUIET)
def test_repeated_quiet_cycles_share_one_line(health: Health, result: Result) -> None:
    for number in range(3):
        health.record(cycle(result, float(number)), None)

    assert [(result, 2.0)] == [(one.result, one.started_at) for one in health.past_cycles()]


@pytest.mark.parametrize("result", ["partial", "refused"])
def test_a_cycle_that_published_something_keeps_its_line(health: Health, result: Result) -> None:
    published = cycle(result)._replace(counts={"files_published": 3})
    for one in (published, cycle(result), cycle(result), published, cycle(result)):
        health.record(one, ERROR)

    expected: list[object] = [{}, published.counts, published.counts]
    assert expected == [one.counts for one in health.past_cycles()]


def test_a_refused_revision_is_shown_but_not_counted_as_a_failure(health: Health) -> None:
    health.record(cycle("error"), ERROR)
    refusal = LastError("revision_refused", "a.py:1: what", "fix it", 6.0)

    health.record(cycle("refused"), refusal)

    assert (0, refusal) == (health.consecutive_failures, health.last_error)
    health.record(cycle("changed"), None)
    assert health.last_error is None


@pytest.mark.parametrize("result", get_args(Result))
def test_only_changed_and_unchanged_cycles_are_successes(result: Any) -> None:
    assert Outcome(result).is_success is (result in ("changed", "unchanged"))


def test_the_time_to_the_next_cycle_decreases_to_zero(health: Health, clock: Clock) -> None:
    health.expect_cycle(10)

    clock.seconds += 4
    assert health.next_cycle_in_seconds == 6
    clock.seconds += 60
    assert health.next_cycle_in_seconds == 0


def test_past_cycles_can_be_read_while_another_thread_records(health: Health) -> None:
    done = threading.Event()

    def write() -> None:
        for number in count():
            health.record(cycle("changed", float(number)), None)
            if done.is_set():
                return

    writer = threading.Thread(target=write)
    writer.start()
    newest = set[float]()
    try:
        while len(newest) < 100:
            starts = [one.started_at for one in health.past_cycles()]
            assert starts == sorted(starts, reverse=True)
            newest.update(starts[:1])
    finally:
        done.set()
        writer.join()


def test_failing_since_is_the_first_failure_until_a_success(health: Health) -> None:
    since = []

    for at in (5.0, 9.0):
        health.record(cycle("error"), LastError("access_denied", "may not", "", at))
        since.append(health.failing_since)
    health.record(cycle("refused"), LastError("revision_refused", "no", "", 12.0))
    since.append(health.failing_since)
    health.record(cycle("unchanged"), None)
    since.append(health.failing_since)

    assert [5.0, 5.0, 5.0, None] == since
