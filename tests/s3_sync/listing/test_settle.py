"""Detecting that an upload in progress has settled."""

import pytest

from s3_sync.listing import BUSY_TIMES, Reading, is_settled, settle
from s3_sync.pages import Entry
from tests.support.machine.clocks import Clock


class Settle:
    """The readings of one listing after another, as a cycle takes them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._reading: Reading | None = None
        self._asked_at = 0.0

    def ask(self) -> None:
        self._asked_at = self._clock()

    def is_settled(
        self, found: dict[str, Entry], *, is_published: bool, quiet_seconds: float
    ) -> bool:
        self._reading = settle(
            self._reading, found, self._asked_at, self._clock(), seconds=30,
            quiet_seconds=quiet_seconds,
        )  # fmt: skip
        return is_published or is_settled(self._reading, 30)


@pytest.fixture(name="settle")
def settle_of_30_seconds(clock: Clock) -> Settle:
    return Settle(clock)


def files(*names: str) -> dict[str, Entry]:
    return {name: Entry(name, "e", 1) for name in names}


def answered(settle: Settle, revision: str, published: str = "r1", quiet: float = 0.0) -> bool:
    """Report a listing with one file named like the revision, and one that never changes."""
    is_published = revision == published
    return settle.is_settled(
        files(revision, "same"), is_published=is_published, quiet_seconds=quiet
    )


def asked(settle: Settle, revision: str, *, published: str = "r1", quiet: float = 0.0) -> bool:
    settle.ask()
    return answered(settle, revision, published, quiet)


def test_a_change_waits_until_it_is_stable_for_the_settle_time(
    settle: Settle, clock: Clock
) -> None:
    assert not asked(settle, "r2")
    clock.seconds += 29.9
    assert not asked(settle, "r2")
    clock.seconds += 0.1
    assert asked(settle, "r2")


def test_every_further_change_restarts_the_wait(settle: Settle, clock: Clock) -> None:
    for number in range(2, 10):
        assert not asked(settle, f"r{number}")
        clock.seconds += 29
    assert not asked(settle, "r2")  # even back to a known state
    clock.seconds += 30
    assert asked(settle, "r2")


def test_the_published_revision_is_always_settled(settle: Settle, clock: Clock) -> None:
    assert asked(settle, "r1")


def test_a_change_reverted_and_repeated_restarts_the_wait(settle: Settle, clock: Clock) -> None:
    """An upload is interrupted, reverted, and started again."""
    assert not asked(settle, "r2")
    clock.seconds += 29
    assert asked(settle, "r1")
    clock.seconds += 1
    assert not asked(settle, "r2")
    clock.seconds += 30
    assert asked(settle, "r2")


def test_the_first_publish_does_not_wait_for_a_quiet_bucket(settle: Settle) -> None:
    assert asked(settle, "r2", published="", quiet=30)


def test_the_first_publish_waits_for_an_upload_in_progress(settle: Settle, clock: Clock) -> None:
    assert not asked(settle, "r2", published="", quiet=20)
    clock.seconds += 9
    assert not asked(settle, "r2", published="", quiet=29)
    clock.seconds += 1
    assert asked(settle, "r2", published="", quiet=30)


def test_the_duration_of_a_listing_does_not_count_as_rest(settle: Settle, clock: Clock) -> None:
    """A listing may be as old as its request, and the first one as new as its response."""
    assert not asked(settle, "r2")
    clock.seconds += 1
    settle.ask()
    clock.seconds += 60
    assert not answered(settle, "r2")
    clock.seconds += 30

    assert asked(settle, "r2")


def test_a_slow_first_listing_does_not_count_as_rest(settle: Settle, clock: Clock) -> None:
    settle.ask()
    clock.seconds += 20

    assert not answered(settle, "r2", "", 40)


def test_a_settled_revision_stays_settled_until_it_is_published(
    settle: Settle, clock: Clock
) -> None:
    """The publish may fail and be retried."""
    asked(settle, "r2")
    clock.seconds += 30

    assert asked(settle, "r2") and asked(settle, "r2")


def test_the_first_change_after_a_long_time_also_waits(settle: Settle, clock: Clock) -> None:
    asked(settle, "r2")
    clock.seconds += 30
    assert asked(settle, "r2")
    assert asked(settle, "r2", published="r2")
    clock.seconds += 10_000

    assert not asked(settle, "r3", published="r2")


def busy(settle: Settle, clock: Clock, *more: str) -> bool:
    """Report a listing 10 seconds after the last one, with a file that changed again."""
    clock.seconds += 10
    settle.ask()
    wanted = {**files(*more), "busy": Entry("busy", f"{clock.seconds}", 1)}
    return settle.is_settled(wanted, is_published=False, quiet_seconds=0)


def test_an_object_that_keeps_changing_delays_only_for_a_limited_time(
    settle: Settle, clock: Clock
) -> None:
    ends = [busy(settle, clock, "a") for _ in range(BUSY_TIMES * 3 + 5)]

    assert [False] * (BUSY_TIMES * 3 + 1) == ends[: BUSY_TIMES * 3 + 1]
    assert all(ends[BUSY_TIMES * 3 + 1 :])


def test_other_changes_beside_a_busy_object_wait_the_usual_time(
    settle: Settle, clock: Clock
) -> None:
    while not busy(settle, clock, "a"):
        pass

    assert [False, False, False, True] == [busy(settle, clock, "a", "b") for _ in range(4)]
    assert not busy(settle, clock, "a", "b", "c")


def test_endless_new_keys_are_waited_for(settle: Settle, clock: Clock) -> None:
    """They could be one long upload, or logs of a process that never ends."""
    names: list[str] = []
    for number in range(BUSY_TIMES * 3 + 1):
        names.append(f"{number:03}.log")
        clock.seconds += 10
        settle.ask()
        assert not settle.is_settled(files(*names), is_published=False, quiet_seconds=0)

    clock.seconds += 30
    settle.ask()
    assert settle.is_settled(files(*names), is_published=False, quiet_seconds=0)


def test_an_object_that_rested_once_is_no_longer_busy(settle: Settle, clock: Clock) -> None:
    while not busy(settle, clock):
        pass
    asked(settle, "r2")
    clock.seconds += 30
    assert asked(settle, "r2")

    assert not busy(settle, clock)
