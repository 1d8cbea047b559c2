"""Glances of the source `release`, one small request instead of a cycle."""

import pytest

from s3_sync.release.names import POINTER_KEY, manifest_key
from tests.s3_sync.process import Process
from tests.s3_sync.release.following import FILES, PINNED
from tests.support.aws.fake_s3 import access_denied, error
from tests.support.http.loopback import Fault
from tests.support.s3_sync.shelf import Shelf, is_manifest, is_pointer


def test_a_glance_costs_one_small_request_until_something_changes(
    shelf: Shelf, process: Process
) -> None:
    shelf.publish(FILES)
    process.start(PINNED)
    assert not process.glance()
    process.cycle()
    process.cycle()
    process.s3.forget()

    assert process.glance() and process.glance()
    requests = process.s3.seen()
    assert (2, 2) == (len(requests), len(process.s3.seen(is_pointer)))
    assert all(request.headers["if-none-match"].startswith('"') for request in requests)
    shelf.publish({"a.py": b"new = 1\n"})
    assert not process.glance()
    assert "changed" == process.cycle().result
    assert process.glance()
    assert 1 == len(process.s3.seen(is_manifest))


def test_a_failed_glance_leaves_the_reason_to_the_next_cycle(
    shelf: Shelf, process: Process
) -> None:
    shelf.publish(FILES)
    process.run(PINNED)
    process.s3.inject(error(503, "SlowDown"))

    assert not process.glance()
    assert "throttled" == process.fail().reason
    assert not process.can_wait_for_news and not process.glance()
    process.s3.heal()
    assert "unchanged" == process.cycle().result
    assert process.glance()


def test_a_glance_after_an_invalid_release_detects_the_next_one(
    shelf: Shelf, process: Process
) -> None:
    good = shelf.publish({"a.py": b"good = 1\n"})
    process.run(PINNED)
    bad = shelf.publish(FILES)
    shelf.put(manifest_key(bad.revision), b"{}")
    process.fail()
    process.s3.forget()

    assert process.glance() and process.glance()
    assert 2 == len(process.s3.seen())
    shelf.point_to(good)
    assert not process.glance()
    assert good.revision == process.cycle().revision


DENIED = access_denied("s3:ListBucket", "arn:aws:s3:::dags-bucket", "arn:aws:iam::1:role/dags")


@pytest.mark.parametrize("missing", [None, DENIED], ids=["404", "403"])
def test_a_glance_detects_the_first_release(
    shelf: Shelf, process: Process, missing: Fault | None
) -> None:
    """Otherwise the first release would wait for the backoff."""
    if missing is not None:
        process.s3.inject(missing, is_pointer)
    process.start(PINNED)
    assert "release_missing" == process.fail().reason
    process.s3.forget()

    assert process.can_wait_for_news
    assert process.glance() and process.glance()
    assert 2 == len(process.s3.seen())
    shelf.publish(FILES)
    process.s3.heal()
    assert not process.glance()
    assert "changed" == process.cycle().result
    assert process.glance()


def test_a_glance_detects_that_the_pointer_was_deleted(shelf: Shelf, process: Process) -> None:
    release = shelf.publish(FILES)
    process.run(PINNED)
    shelf.remove(POINTER_KEY)
    assert not process.glance()
    assert "release_missing" == process.fail().reason

    assert process.can_wait_for_news and process.glance()
    shelf.point_to(release)
    assert not process.glance()
    assert "unchanged" == process.cycle().result


def test_a_failure_waits_for_its_backoff_if_glances_are_unreliable(
    shelf: Shelf, process: Process
) -> None:
    """Otherwise each glance would trigger another failing cycle, without any backoff."""
    good = shelf.publish({"a.py": b"good = 1\n"})
    process.run(PINNED)
    bad = shelf.publish(FILES)
    shelf.put(manifest_key(bad.revision), b"{}")
    process.fail()
    assert process.can_wait_for_news

    process.s3.inject(error(503, "SlowDown"), is_pointer)
    assert not process.glance()
    process.s3.heal()
    process.fail()
    assert not process.can_wait_for_news

    shelf.point_to(good)
    process.cycle()
    assert process.can_wait_for_news and process.glance()


def test_with_delete_all_a_glance_leads_to_a_cycle(shelf: Shelf, process: Process) -> None:
    shelf.publish(FILES)
    process.run(PINNED | {"S3_SYNC_DELETE": "all"})
    (process.folder / "theirs.py").write_bytes(b"x")

    assert not process.glance()
    process.cycle()
    assert FILES == process.shown
