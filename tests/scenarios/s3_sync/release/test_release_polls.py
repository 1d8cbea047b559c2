"""Frequent polls: one that fails is a failed cycle, and the next one recovers."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.aws.fake_s3 import FakeS3
from tests.support.daemon import Daemon
from tests.support.http.faults import (
    drip,
    hang,
    replace_body,
)
from tests.support.http.loopback import Fault
from tests.support.s3_sync.scripted import new_content
from tests.support.s3_sync.shelf import Shelf, is_manifest, is_pointer, release_daemon
from tests.support.s3_sync.snapshots import shown
from tests.support.waiting import wait_until

OFTEN = {"S3_SYNC_TIMEOUT": "2s"}


@dataclass(frozen=True)
class Polling:
    """A daemon that polls five times a second and abandons a cycle after four seconds."""

    s3: FakeS3
    shelf: Shelf
    daemon: Daemon

    def publish(self) -> dict[str, bytes]:
        """Publish a new release; return its files."""
        files = {"a.py": new_content(), "pkg/same.py": b"same = 1\n"}
        self.shelf.publish(files)
        return files

    def wait_for_polls(self, count: int = 3) -> None:
        """Wait for that many more polls."""
        self.s3.forget()
        self.s3.wait_for(is_pointer, count=count, timeout=30)

    def wait_until_seen(self, wanted: dict[str, bytes]) -> None:
        """Wait until these files are published and no reason is reported."""
        wait_until(lambda: shown(self.daemon.target) == wanted, "the release is there", 60)
        wait_until(
            lambda: self.daemon.get("/readyz").json()["reason"] is None, "no reason is left", 60
        )


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Polling]:
    """One daemon for all tests of the module."""
    with FakeS3() as s3:
        target: Path = tmp_path_factory.mktemp("polls") / "dags"
        daemon = release_daemon(s3, target, OFTEN, interval="0.2")
        polling = Polling(s3, Shelf(s3), daemon)
        polling.publish()
        with daemon:
            daemon.wait_until_synced()
            yield polling
            assert 0 == daemon.terminate().code


@pytest.fixture
def polling(running: Polling) -> Iterator[Polling]:
    """The daemon; after each test, even a failed one, it runs without faults and is up to date."""
    yield running
    running.s3.heal()
    if not running.daemon.is_running():
        running.daemon.start()
    running.wait_until_seen(running.publish())


@pytest.mark.parametrize("fault", [hang(), drip(1, 0.2)], ids=["silence", "drip"])
def test_a_silent_or_slow_poll_fails_at_the_cycle_timeout(polling: Polling, fault: Fault) -> None:
    polling.wait_for_polls()
    seen = len(polling.daemon.events)
    polling.s3.inject(fault, is_pointer)
    wanted = polling.publish()  # a 304 response has no body that could drip

    polling.daemon.wait_for_event("cycle_failed", 30, seen, reason="cycle_timeout")

    assert 200 == polling.daemon.get("/healthz").status
    polling.s3.heal()
    polling.wait_until_seen(wanted)


def test_a_rollback_from_a_bad_release_does_not_wait_for_the_backoff(polling: Polling) -> None:
    before, good = shown(polling.daemon.target), polling.shelf.current
    assert good is not None
    polling.s3.inject(replace_body(lambda _: b"{}"), is_manifest)
    polling.publish()
    waits: list[float] = []
    while len(waits) < 6:  # the backoff alone would be up to twelve seconds
        seen = len(polling.daemon.events)
        failed = polling.daemon.wait_for_event("cycle_failed", 60, seen)
        waits.append(failed["retry_in_seconds"])

    polling.shelf.point_to(good)
    polling.wait_until_seen(before)

    assert {0.2} == set(waits)


def test_each_poll_is_one_request_and_reuses_the_connection(polling: Polling) -> None:
    polling.wait_until_seen(polling.publish())
    polling.wait_for_polls()
    polling.wait_for_polls(20)

    requests = list(polling.s3.requests)
    assert all(map(is_pointer, requests))
    assert len({request.connection for request in requests}) <= 2


def test_sigterm_stops_the_daemon_during_a_silent_poll(polling: Polling) -> None:
    polling.wait_for_polls()
    polling.s3.inject(hang(), is_pointer)
    polling.wait_for_polls(1)

    assert 0 == polling.daemon.terminate().code
