"""
The wait after failures.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar_runtime.backoff import CAP_SECONDS, FLOOR_SECONDS, backoff_seconds


def longest(failures: int, interval_seconds: float) -> float:
    return backoff_seconds(failures, interval_seconds, lambda _, high: high)


def test_the_range_doubles_with_each_failure_up_to_a_minute() -> None:
    assert [2, 4, 8, 16, 32, 60, 60] == [longest(n, 10) for n in range(1, 8)]


def test_a_short_interval_is_asked_again_soon() -> None:
    assert [0.4, 0.8, 1.6] == [longest(n, 0.2) for n in range(1, 4)]


def test_a_failing_source_is_not_asked_less_often_than_a_healthy_one_beyond_a_minute() -> None:
    assert longest(100, 10) == CAP_SECONDS
    assert longest(100, 3600) == 3600


def test_the_whole_range_is_drawn_from() -> None:
    drawn: list[tuple[float, float]] = []

    def draw(low: float, high: float) -> float:
        drawn.append((low, high))
        return 7.0

    assert backoff_seconds(3, 10, draw) == 7.0
    assert drawn == [(0.0, 8.0)]


def test_waits_a_moment_even_when_nothing_is_drawn() -> None:
    assert backoff_seconds(1, 10, lambda low, _: low) == FLOOR_SECONDS


@given(failures=st.integers(1, 10**9), interval_seconds=st.floats(0.1, 7 * 86400))
def test_is_always_between_the_floor_and_the_cap(failures: int, interval_seconds: float) -> None:
    wait_seconds = backoff_seconds(failures, interval_seconds)

    assert FLOOR_SECONDS <= wait_seconds <= max(CAP_SECONDS, interval_seconds)


@pytest.mark.parametrize("interval_seconds", [0.2, 10.0, 3600.0])
def test_differs_between_the_pods_of_a_fleet(interval_seconds: float) -> None:
    waits = {backoff_seconds(10, interval_seconds) for _ in range(50)}

    assert len(waits) == 50
