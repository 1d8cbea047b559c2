"""The pending revisions, limited in number, and the failures that are remembered."""

import pytest

from sidecar_runtime.asking.asked import FAILED_SECONDS, MOST, Asked
from sidecar_runtime.errors import SidecarError
from tests.support.machine.clocks import Clock

FAILURE = SidecarError("release_missing", "there is none")


@pytest.fixture
def asked(clock: Clock) -> Asked:
    return Asked(clock)


def test_each_revision_is_pending_once_in_the_order_of_requests(asked: Asked) -> None:
    woken: list[None] = []
    asked.wake = lambda: woken.append(None)

    assert [None] * 4 == [asked.ask(name) for name in ("b", "a", "b", "a")]

    assert ["b", "a"] == asked.waiting()
    assert 2 == len(woken)


def test_a_fetched_revision_can_be_requested_again(asked: Asked) -> None:
    asked.ask("a")
    asked.settle("a")

    assert [] == asked.waiting()
    assert asked.ask("a") is None and ["a"] == asked.waiting()


def test_a_failure_is_returned_until_it_expires(asked: Asked, clock: Clock) -> None:
    asked.ask("a")
    asked.settle("a", FAILURE)
    clock.seconds += FAILED_SECONDS - 0.1

    assert FAILURE is asked.ask("a") and [] == asked.waiting()

    clock.seconds += 0.2
    assert asked.ask("a") is None and ["a"] == asked.waiting()


def test_refuses_requests_beyond_the_limit_of_pending_revisions(asked: Asked) -> None:
    """Otherwise memory and requests to the source would grow with the requests of consumers."""
    for number in range(MOST):
        assert asked.ask(str(number)) is None

    refused = asked.ask("one more")
    assert refused is not None and "request_limit" == refused.reason
    assert "one more" not in asked.waiting()

    asked.settle("0")
    assert asked.ask("one more") is None


def test_failures_do_not_count_toward_the_limit_of_pending_revisions(asked: Asked) -> None:
    for number in range(2 * MOST):
        assert asked.ask(str(number)) is None
        asked.settle(str(number), FAILURE)

    assert asked.ask("one more") is None
    assert FAILURE is asked.ask(str(2 * MOST - 1))
    assert asked.ask("0") is None  # forgotten: only the last MOST failures are remembered


def test_refuses_requests_during_an_outage_and_keeps_earlier_ones_pending(
    asked: Asked,
) -> None:
    woken: list[None] = []
    asked.wake = lambda: woken.append(None)
    asked.ask("before")
    asked.outage = SidecarError("server_error", "S3 answers 503")

    for name in ("a", "before"):
        refused = asked.ask(name)
        assert refused is not None and ("request_in_outage", "S3 answers 503") == (
            refused.reason,
            refused.message,
        )
    assert ["before"] == asked.waiting()
    assert 1 == len(woken)

    asked.outage = None
    assert asked.ask("before") is None
