"""
The history of the last hours: the worst result of each span of five minutes.
"""

import pytest

from sidecar_runtime.history import SPAN_SECONDS, SPANS, History
from tests.support.machine.clocks import Clock


@pytest.fixture
def clock() -> Clock:
    clock = Clock()
    clock.seconds = 10 * SPAN_SECONDS
    return clock


@pytest.fixture
def history(clock: Clock) -> History:
    return History(clock)


def test_is_empty_before_the_first_cycle(history: History) -> None:
    assert [] == history.recent()


@pytest.mark.parametrize(
    ("results", "worst"),
    [
        (["unchanged", "changed", "unchanged"], "changed"),
        (["changed", "refused", "unchanged"], "partial"),
        (["error", "changed", "held"], "error"),
        (["waiting", "settling"], "unchanged"),
    ],
)
def test_a_span_has_the_worst_result_of_its_cycles(
    history: History, results: list[str], worst: str
) -> None:
    for result in results:
        history.note(result)

    assert [worst] == history.recent()


def test_a_span_without_cycles_repeats_the_previous_result(history: History, clock: Clock) -> None:
    for result in ("changed", "error", "unchanged"):
        history.note(result)
        clock.seconds += 3 * SPAN_SECONDS

    assert ["changed", *["unchanged"] * 2, *["error"] * 3, *["unchanged"] * 4] == history.recent()


def test_is_bounded_however_much_time_passes(history: History, clock: Clock) -> None:
    for number in range(10 * SPANS):
        history.note("error" if number % 2 else "changed")
        clock.seconds += SPAN_SECONDS
    assert SPANS == len(history.recent()) == len(history._spans)

    clock.seconds += 1_000 * SPANS * SPAN_SECONDS
    assert ["error"] * SPANS == history.recent()
