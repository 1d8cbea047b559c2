"""
The heartbeat, the past cycles and the last error.
"""

from typing import get_args

import pytest

from sidecar_runtime.errors import SidecarError
from sidecar_runtime.health import QUIET, Health, Outcome, Result
from tests.support.machine.clocks import Clock

FAILED = Outcome("error", problem=SidecarError("access_denied", "may not", "allow it"))


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(clock)


def results(health: Health) -> list[Result]:
    return [cycle.outcome.result for cycle in health.past_cycles()]


def test_is_alive_while_the_heartbeat_is_younger_than_the_limit(
    health: Health, clock: Clock
) -> None:
    assert health.is_alive, "no cycle has ended yet"
    health.beat()
    health.expect_cycle(0, 30)

    clock.seconds += 29.5
    assert health.is_alive
    clock.seconds += 0.5
    assert not health.is_alive
    assert health.beat_age_seconds == 30


def test_a_success_resets_the_failures(health: Health) -> None:
    health.record(FAILED, 0.1)
    health.record(FAILED, 0.1)
    last = health.last_error
    assert last is not None
    assert (2, "may not") == (health.consecutive_failures, last.message)

    health.record(Outcome("unchanged"), 0.1)
    assert (0, None) == (health.consecutive_failures, health.last_error)


def test_keeps_nothing_that_a_failed_cycle_held(health: Health) -> None:
    try:
        raise SidecarError("access_denied", "may not") from ValueError("why")
    except SidecarError as error:
        health.record(Outcome("error", problem=error), 0.1)

    assert health.last_error is not None
    assert (None, None) == (health.last_error.__traceback__, health.last_error.__cause__)
    assert health.past_cycles()[0].outcome.problem is health.last_error


@pytest.mark.parametrize("result", get_args(Result))
def test_repeated_quiet_cycles_share_one_line(health: Health, result: Result) -> None:
    for each in ("changed", result, result, "error", result):
        health.record(Outcome(each), 0.1)

    repeated = [result] if result in QUIET else [result, result]
    assert [result, "error", *repeated, "changed"] == results(health)


def test_a_problem_lasts_from_its_first_cycle_to_its_last(
    health: Health, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = iter([5.0, 7.0, 9.0])
    monkeypatch.setattr("time.time", lambda: next(moments))
    health.record(FAILED, 0.1)
    health.record(Outcome("partial", problem=FAILED.problem), 0.1)
    assert (5.0, 7.0) == (health.failing_since, health.last_error_at)
    health.record(Outcome("changed"), 0.1)
    assert health.failing_since is None
