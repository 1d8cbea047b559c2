"""The source `release` as a process: its requests, and pins."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.scenarios.s3_sync.conftest import StartDaemon
from tests.support.airflow.asking import STORE
from tests.support.aws.fake_s3 import FakeS3
from tests.support.daemon import Daemon
from tests.support.http.faults import replace_body
from tests.support.http.loopback import Request
from tests.support.s3_sync.scripted import record_of
from tests.support.s3_sync.shelf import (
    RELEASE,
    Shelf,
    is_bundle,
    is_manifest,
    is_pointer,
)
from tests.support.s3_sync.snapshots import consumed

FILES = {"a.py": b"print('a')\n" * 90, "pkg/empty.py": b"", "z.bin": os.urandom(5_000)}

Begin = Callable[..., Daemon]


@pytest.fixture
def shelf(s3: FakeS3) -> Shelf:
    """A shelf with one release, on the scripted server."""
    s3.objects.clear()
    shelf = Shelf(s3)
    shelf.publish(FILES, executable={"z.bin"})
    return shelf


@pytest.fixture
def begin(start: StartDaemon) -> Begin:
    """A function that starts daemons that read releases, with additional settings."""
    return lambda **more: start(RELEASE | more)


def parts(requests: list[Request]) -> dict[str, int]:
    """Return how often each of the three objects was requested."""
    matches = {"pointer": is_pointer, "manifest": is_manifest, "bundle": is_bundle}
    found = {part: sum(map(match, requests)) for part, match in matches.items()}
    assert sum(found.values()) == len(requests), requests
    return found


# --- requests: docs/explanation/how-it-scales.md states the same numbers


def test_an_empty_volume_costs_three_requests_and_each_poll_one(
    s3: FakeS3, shelf: Shelf, target: Path, begin: Begin
) -> None:
    daemon = begin(S3_SYNC_KEEP_REQUESTED="0").until_synced()
    assert {"pointer": 1, "manifest": 1, "bundle": 1} == parts(s3.requests)

    s3.forget()
    for _ in range(10):
        assert "unchanged" == daemon.sync()["result"]

    assert {"pointer": 10, "manifest": 0, "bundle": 0} == parts(s3.requests)
    assert all("if-none-match" in request.headers for request in s3.requests)
    assert record_of(daemon)["sequence"], "it is told, also after these polls"
    assert FILES == consumed(target)
    assert not (target / STORE / "ask.sock").exists()


@pytest.mark.parametrize(
    ("path", "reason"),
    # The first fits only without the path of the target.
    [("/".join(["x" * 212] * 19), "release_invalid"), ("a.py", "bundle_corrupt")],
    ids=["path", "bundle"],
)
def test_a_rollback_from_a_bad_release_does_not_wait_for_the_backoff(
    s3: FakeS3, shelf: Shelf, target: Path, begin: Begin, path: str, reason: str
) -> None:
    daemon = begin(INTERVAL="0.2").until_synced()
    good = shelf.current
    assert good
    s3.inject(replace_body(lambda body: bytes(len(body))), is_bundle)
    shelf.publish({path: b"bad\n"})
    waits = set()
    for _ in range(6):  # the backoff alone would be up to twelve seconds
        failed = daemon.wait_for_event("cycle_failed", 60, len(daemon.events))
        waits.add((failed["reason"], failed["retry_in_seconds"]))
    assert {(reason, 0.2)} == waits

    shelf.point_to(good)

    assert "unchanged" == daemon.sync()["result"] and FILES == consumed(target)


# --- pins


def test_a_one_shot_downloads_the_pinned_release_instead_of_the_current_one(
    s3: FakeS3, shelf: Shelf, target: Path, begin: Begin
) -> None:
    first = next(iter(shelf.releases))
    shelf.publish({"a.py": b"another\n"})
    assert (
        0 == begin(S3_SYNC_REVISION=first, S3_SYNC_ONE_SHOT="true").wait_for_exit().code
    )

    assert {"pointer": 0, "manifest": 1, "bundle": 1} == parts(s3.requests)
    assert FILES == consumed(target)
    record = json.loads((target / ".s3-sync/published.json").read_text())
    assert (first, "release") == (record["revision"], record["kind"])
    assert not (target / STORE / "ask.sock").exists(), "it serves no requests"
