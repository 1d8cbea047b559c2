"""Requested revisions: each once, a limited number at a time; and how long a failure is kept."""

import pytest

from sidecar_runtime.asking.asked import FAILED_SECONDS, MOST, Asked
from sidecar_runtime.errors import SidecarError
from tests.support.clocks import Clock

FAILURE = SidecarError("release_missing", "there is none")


@pytest.fixture
def asked(clock: Clock) -> Asked:
    return Asked(clock)


def test_each_is_asked_for_once_first_come_first(asked: Asked) -> None:
    woken: list[None] = []
    asked.wake = lambda: woken.append(None)

    assert [None] * 4 == [asked.ask(name) for name in ("b", "a", "b", "a")]

    assert ["b", "a"] == asked.waiting()
    assert 2 == len(woken)


def test_what_is_brought_is_forgotten_and_can_be_asked_for_again(asked: Asked) -> None:
    asked.ask("a")
    asked.settle("a")

    assert [] == asked.waiting()
    assert asked.ask("a") is None and ["a"] == asked.waiting()


def test_a_failure_is_the_answer_for_a_while(asked: Asked, clock: Clock) -> None:
    asked.ask("a")
    asked.settle("a", FAILURE)
    clock.seconds += FAILED_SECONDS - 0.1

    assert FAILURE is asked.ask("a") and [] == asked.waiting()

    clock.seconds += 0.2
    assert asked.ask("a") is None and ["a"] == asked.waiting()


def test_who_asks_for_everything_gets_so_much_and_no_more(asked: Asked) -> None:
    """Neither memory nor requests to the source grow with the number of requests."""
    for number in range(MOST):
        assert asked.ask(str(number)) is None

    refused = asked.ask("one more")
    assert refused is not None and "asked_too_much" == refused.reason
    assert "one more" not in asked.waiting()

    asked.settle("0")
    assert asked.ask("one more") is None


def test_what_failed_takes_no_place_from_what_is_waited_for(asked: Asked) -> None:
    for number in range(2 * MOST):
        assert asked.ask(str(number)) is None
        asked.settle(str(number), FAILURE)

    assert asked.ask("one more") is None
    assert FAILURE is asked.ask(str(2 * MOST - 1))
    assert asked.ask("0") is None  # forgotten: as many failures are remembered as there are places


def test_an_outage_is_the_answer_and_what_was_asked_for_before_comes_at_its_end(
    asked: Asked,
) -> None:
    woken: list[None] = []
    asked.wake = lambda: woken.append(None)
    asked.ask("before")
    asked.outage = SidecarError("server_error", "S3 answers 503")

    for name in ("a", "before"):
        refused = asked.ask(name)
        assert refused is not None and ("asked_in_outage", "S3 answers 503") == (
            refused.reason,
            refused.message,
        )
    assert ["before"] == asked.waiting()
    assert 1 == len(woken)

    asked.outage = None
    assert asked.ask("before") is None
