"""When an upload in progress has settled."""

import pytest

from s3_sync.listing.entries import Entry
from s3_sync.listing.settle import BUSY_TIMES, Settle
from tests.support.clocks import Clock


@pytest.fixture
def settle(clock: Clock) -> Settle:
    return Settle(30, clock)


def files(*names: str) -> dict[str, Entry]:
    return {name: Entry(name, "e", 1) for name in names}


def answered(settle: Settle, revision: str, published: str = "r1", quiet: float = 0.0) -> bool:
    """An answer with one file that is like the revision, and one that never changes."""
    is_published = revision == published
    return settle.is_settled(
        files(revision, "same"), is_published=is_published, quiet_seconds=quiet
    )


def asked(settle: Settle, revision: str, *, published: str = "r1", quiet: float = 0.0) -> bool:
    settle.ask()
    return answered(settle, revision, published, quiet)


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
    assert not answered(settle, "r2")
    clock.seconds += 30

    assert asked(settle, "r2")


def test_a_slow_first_listing_has_not_rested_while_it_came(settle: Settle, clock: Clock) -> None:
    settle.ask()
    clock.seconds += 20

    assert not answered(settle, "r2", "", 40)


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


def busy(settle: Settle, clock: Clock, *more: str) -> bool:
    """A listing 10 seconds after the last one, with a file that has changed again."""
    clock.seconds += 10
    settle.ask()
    wanted = {**files(*more), "busy": Entry("busy", f"{clock.seconds}", 1)}
    return settle.is_settled(wanted, is_published=False, quiet_seconds=0)


def test_what_changes_all_the_time_is_waited_for_as_long_as_an_upload_could_take(
    settle: Settle, clock: Clock
) -> None:
    ends = [busy(settle, clock, "a") for _ in range(BUSY_TIMES * 3 + 5)]

    assert [False] * (BUSY_TIMES * 3 + 1) == ends[: BUSY_TIMES * 3 + 1]
    assert all(ends[BUSY_TIMES * 3 + 1 :])


def test_what_changes_beside_it_is_still_waited_for_and_no_longer(
    settle: Settle, clock: Clock
) -> None:
    while not busy(settle, clock, "a"):
        pass

    assert [False, False, False, True] == [busy(settle, clock, "a", "b") for _ in range(4)]
    assert not busy(settle, clock, "a", "b", "c")


def test_new_keys_without_end_are_waited_for_and_named(settle: Settle, clock: Clock) -> None:
    """They could be one upload, and so could the logs of something that never ends."""
    names: list[str] = []
    for number in range(BUSY_TIMES * 3 + 1):
        assert "" == settle.disturber
        names.append(f"{number:03}.log")
        clock.seconds += 10
        settle.ask()
        assert not settle.is_settled(files(*names), is_published=False, quiet_seconds=0)

    assert names[-1] == settle.disturber
    clock.seconds += 30
    settle.ask()
    assert settle.is_settled(files(*names), is_published=False, quiet_seconds=0)
    assert "" == settle.disturber


def test_what_has_rested_once_is_busy_no_more(settle: Settle, clock: Clock) -> None:
    while not busy(settle, clock):
        pass
    asked(settle, "r2")
    clock.seconds += 30
    assert asked(settle, "r2")

    assert not busy(settle, clock)
