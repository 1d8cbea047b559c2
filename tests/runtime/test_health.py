"""
Heartbeat, history, last error.
"""

import threading
from typing import Any

import pytest

from sidecar_runtime.health import PAST_CYCLES, QUIET, Health, LastError, Outcome, PastCycle, Result
from tests.support.clocks import Clock

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


def test_is_alive_while_the_heartbeat_is_younger_than_stated(health: Health, clock: Clock) -> None:
    health.beat()
    health.expect_beat(30)

    clock.seconds += 29.9
    assert health.is_alive
    clock.seconds += 0.1
    assert not health.is_alive
    assert health.beat_age_seconds == pytest.approx(30)


def test_only_a_beat_makes_it_alive_again(health: Health, clock: Clock) -> None:
    health.expect_beat(30)
    clock.seconds += 31

    health.record(cycle("error"), ERROR)
    health.expect_cycle(1)
    assert not health.is_alive
    health.beat()
    assert health.is_alive


def test_a_success_ends_the_failures(health: Health) -> None:
    health.record(cycle("error"), ERROR)
    health.record(cycle("error"), ERROR)
    assert (2, ERROR) == (health.consecutive_failures, health.last_error)

    health.record(cycle("unchanged"), None)

    assert (0, None) == (health.consecutive_failures, health.last_error)


def test_the_history_is_newest_first_and_short(health: Health) -> None:
    for number in range(PAST_CYCLES + 5):
        health.record(cycle("changed", float(number)), None)

    past = health.past_cycles()
    assert len(past) == PAST_CYCLES
    assert past[0].started_at == PAST_CYCLES + 4
    assert past[-1].started_at == 5


def test_different_quiet_cycles_take_a_line_each(health: Health) -> None:
    results: list[Result] = ["settling", "refused", "unchanged", "refused", "refused", "waiting"]
    for result in results:
        health.record(cycle(result), None)

    expected = ["waiting", "refused", "unchanged", "refused", "settling"]
    assert expected == [one.result for one in health.past_cycles()]


@pytest.mark.parametrize("result", QUIET)
def test_equal_quiet_cycles_take_one_line_only(health: Health, result: Result) -> None:
    for number in range(3):
        health.record(cycle(result, float(number)), None)

    assert [(result, 2.0)] == [(one.result, one.started_at) for one in health.past_cycles()]


def test_a_refused_revision_is_an_error_to_show_and_no_failure(health: Health) -> None:
    health.record(cycle("error"), ERROR)
    refusal = LastError("revision_refused", "a.py:1: what", "fix it", 6.0)

    health.record(cycle("refused"), refusal)

    assert (0, refusal) == (health.consecutive_failures, health.last_error)
    health.record(cycle("changed"), None)
    assert health.last_error is None


@pytest.mark.parametrize("result", ["changed", "unchanged", "waiting", "settling", "refused"])
def test_a_success_is_where_the_source_and_what_is_published_agree(result: Any) -> None:
    assert Outcome(result).is_success is (result in ("changed", "unchanged"))


def test_the_next_cycle_comes_nearer_and_is_never_in_the_past(health: Health, clock: Clock) -> None:
    health.expect_cycle(10)

    clock.seconds += 4
    assert health.next_cycle_in_seconds == pytest.approx(6)
    clock.seconds += 60
    assert health.next_cycle_in_seconds == 0


def test_may_be_read_while_it_is_written(health: Health) -> None:
    done = threading.Event()

    def write() -> None:
        for number in range(5000):
            health.record(cycle("changed", float(number)), None)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        starts = [one.started_at for one in health.past_cycles()]
        assert starts == sorted(starts, reverse=True)
    writer.join()


def test_trouble_is_dated_from_its_first_failure_until_a_success(health: Health) -> None:
    since = []

    for at in (5.0, 9.0):
        health.record(cycle("error"), LastError("access_denied", "may not", "", at))
        since.append(health.failing_since)
    health.record(cycle("refused"), LastError("revision_refused", "no", "", 12.0))
    since.append(health.failing_since)
    health.record(cycle("unchanged"), None)
    since.append(health.failing_since)

    assert [5.0, 5.0, 5.0, None] == since
