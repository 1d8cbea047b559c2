"""Detecting that an upload in progress has settled."""

from s3_sync.listing import Reading, settle


def test_a_listing_counts_from_its_first_arrival() -> None:
    first = settle(None, "r1", 10.0)

    assert Reading("r1", 10.0) == first
    assert first is settle(first, "r1", 40.0)


def test_every_change_restarts_the_wait() -> None:
    """Even back to a known state: an upload is interrupted, reverted, and started again."""
    reading = settle(settle(None, "r1", 10.0), "r2", 20.0)

    assert Reading("r2", 20.0) == reading
    assert Reading("r1", 30.0) == settle(reading, "r1", 30.0)
