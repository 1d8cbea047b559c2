"""
The backoff after failures.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar_runtime.loop.backoff import Backoff


def longest(failures: int, interval_seconds: float) -> float:
    return Backoff(draw=lambda _, high: high).seconds(failures, interval_seconds)


def test_doubles_with_each_failure_up_to_a_minute_or_the_interval() -> None:
    assert [2, 4, 8, 16, 32, 60, 60] == [longest(n, 10) for n in range(1, 8)]
    assert [0.4, 0.8, 1.6] == [longest(n, 0.2) for n in range(1, 4)]
    assert [60, 3600] == [longest(100, 10), longest(100, 3600)]


def test_draws_between_zero_and_the_maximum() -> None:
    drawn: list[tuple[float, float]] = []

    def draw(low: float, high: float) -> float:
        drawn.append((low, high))
        return 7.0

    assert Backoff(draw=draw).seconds(3, 10) == 7.0
    assert drawn == [(0.0, 8.0)]


def test_waits_at_least_the_floor_even_if_zero_is_drawn() -> None:
    assert Backoff(draw=lambda low, _: low).seconds(1, 10) == 0.2


@given(failures=st.integers(1, 10**9), interval_seconds=st.floats(0.1, 7 * 86400))
def test_is_always_between_the_floor_and_the_cap(failures: int, interval_seconds: float) -> None:
    backoff = Backoff()

    wait_seconds = backoff.seconds(failures, interval_seconds)

    assert backoff.floor_seconds <= wait_seconds <= max(backoff.cap_seconds, interval_seconds)


@pytest.mark.parametrize("interval_seconds", [0.2, 10.0, 3600.0])
def test_differs_between_the_pods_of_a_fleet(interval_seconds: float) -> None:
    waits = {Backoff().seconds(10, interval_seconds) for _ in range(50)}

    assert len(waits) == 50
