"""When an upload in progress has settled."""

import pytest

from s3_sync.listing.settle import Settle
from tests.support.clocks import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def settle(clock: Clock) -> Settle:
    return Settle(30, clock)


def asked(settle: Settle, revision: str, *, published: str = "r1", quiet: float = 0.0) -> bool:
    settle.ask()
    return settle.is_settled(revision, published=published, quiet_seconds=quiet)


def test_nothing_waits_where_it_is_off(clock: Clock) -> None:
    settle = Settle(0, clock)

    assert asked(settle, "r2") and asked(settle, "r3") and asked(settle, "r4", published="")


def test_a_change_waits_until_it_has_stayed_the_same_for_long_enough(
    settle: Settle, clock: Clock
) -> None:
    assert not asked(settle, "r2")
    clock.seconds += 29.9
    assert not asked(settle, "r2")
    clock.seconds += 0.1
    assert asked(settle, "r2")


def test_every_further_change_starts_the_wait_over(settle: Settle, clock: Clock) -> None:
    for number in range(2, 10):
        assert not asked(settle, f"r{number}")
        clock.seconds += 29
    assert not asked(settle, "r2")  # also one that was seen before
    clock.seconds += 30
    assert asked(settle, "r2")


def test_what_is_published_is_always_settled(settle: Settle, clock: Clock) -> None:
    assert asked(settle, "r1")


def test_a_change_that_comes_again_after_the_published_one_starts_the_wait_over(
    settle: Settle, clock: Clock
) -> None:
    """Half an upload, taken back, and begun again."""
    assert not asked(settle, "r2")
    clock.seconds += 29
    assert asked(settle, "r1")
    clock.seconds += 1
    assert not asked(settle, "r2")
    clock.seconds += 30
    assert asked(settle, "r2")


def test_a_bucket_that_has_been_quiet_is_published_at_once_where_nothing_is(settle: Settle) -> None:
    assert asked(settle, "r2", published="", quiet=30)


def test_a_bucket_that_is_being_filled_is_waited_for_where_nothing_is_published(
    settle: Settle, clock: Clock
) -> None:
    assert not asked(settle, "r2", published="", quiet=20)
    clock.seconds += 9
    assert not asked(settle, "r2", published="", quiet=29)
    clock.seconds += 1
    assert asked(settle, "r2", published="", quiet=30)


def test_the_time_that_a_listing_takes_is_no_rest(settle: Settle, clock: Clock) -> None:
    """What it shows may be as old as its question; what the first one showed is as new as its
    answer."""
    assert not asked(settle, "r2")
    clock.seconds += 1
    settle.ask()
    clock.seconds += 60
    assert not settle.is_settled("r2", published="r1", quiet_seconds=0)
    clock.seconds += 30

    assert asked(settle, "r2")


def test_a_slow_first_listing_has_not_rested_while_it_came(settle: Settle, clock: Clock) -> None:
    settle.ask()
    clock.seconds += 20

    assert not settle.is_settled("r2", published="", quiet_seconds=40)


def test_once_settled_it_stays_so_until_it_is_published(settle: Settle, clock: Clock) -> None:
    """The publish may fail, and is tried again."""
    asked(settle, "r2")
    clock.seconds += 30

    assert asked(settle, "r2") and asked(settle, "r2")


def test_the_first_change_after_a_long_time_waits_too(settle: Settle, clock: Clock) -> None:
    asked(settle, "r2")
    clock.seconds += 30
    assert asked(settle, "r2")
    assert asked(settle, "r2", published="r2")
    clock.seconds += 10_000

    assert not asked(settle, "r3", published="r2")
