"""The source `release` from outside: what it asks, what it keeps, what it does with pins."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.scenarios.s3_sync.conftest import StartDaemon
from tests.scenarios.s3_sync.weather import LAYOUTS
from tests.support.daemon import Daemon
from tests.support.fake_s3 import FakeS3
from tests.support.loopback import Request
from tests.support.shelf import RELEASE, Shelf, is_bundle, is_manifest, is_pointer
from tests.support.snapshots import consumed

FILES = {
    "a.py": b"print('a')\n" * 90,
    "pkg/b.py": b"print('b')\n" * 300,
    "pkg/deep/c.sql": b"select 1;\n" * 10,
    "pkg/empty.py": b"",
    "run.sh": b"#!/bin/sh\nexit 0\n",
    "z.bin": os.urandom(5_000),
}

Begin = Callable[..., Daemon]

pytestmark = pytest.mark.parametrize("layout", LAYOUTS)


@pytest.fixture
def shelf(s3: FakeS3) -> Shelf:
    """A shelf with one release on the scripted server."""
    s3.objects.clear()
    shelf = Shelf.at(s3)
    shelf.publish(FILES, executable={"run.sh"})
    return shelf


@pytest.fixture
def begin(start: StartDaemon, layout: str) -> Begin:
    """Starts daemons that read releases, with more settings."""
    return lambda **more: start(RELEASE | {"S3_SYNC_LAYOUT": layout} | more)


def parts(requests: list[Request]) -> dict[str, int]:
    """How often each of the three objects was asked for."""
    matches = {"pointer": is_pointer, "manifest": is_manifest, "bundle": is_bundle}
    found = {part: sum(map(match, requests)) for part, match in matches.items()}
    assert sum(found.values()) == len(requests), requests
    return found


def facts(target: Path, path: str) -> os.stat_result:
    """What a consumer finds at a path, in either layout."""
    root = target / "current" if (target / "current").is_symlink() else target
    return (root / path).stat()


def record(target: Path) -> dict[str, object]:
    """What is on record as published."""
    found: dict[str, object] = json.loads((target / ".s3-sync/published.json").read_text())
    return found


# --- requests: docs/explanation/what-polling-costs.md has the same numbers


def test_empty_volume_costs_three_requests_and_a_poll_one(
    s3: FakeS3, shelf: Shelf, target: Path, begin: Begin
) -> None:
    daemon = begin().until_synced()
    assert {"pointer": 1, "manifest": 1, "bundle": 1} == parts(s3.requests)

    s3.forget()
    for _ in range(10):
        assert "unchanged" == daemon.sync()["result"]

    assert {"pointer": 10, "manifest": 0, "bundle": 0} == parts(s3.requests)
    assert all("if-none-match" in request.headers for request in s3.requests)
    assert FILES == consumed(target)


# --- pins


def test_one_shot_fetches_the_pinned_release_though_another_is_current(
    s3: FakeS3, shelf: Shelf, target: Path, begin: Begin
) -> None:
    first = next(iter(shelf.releases))
    shelf.publish({"a.py": b"another\n"})
    assert 0 == begin(S3_SYNC_REVISION=first, S3_SYNC_ONE_SHOT="true").wait_for_exit().code

    assert {"pointer": 0, "manifest": 1, "bundle": 1} == parts(s3.requests)
    assert FILES == consumed(target)
    assert (first, "release") == (record(target)["revision"], record(target)["kind"])


def test_pin_to_another_release_takes_over_the_volume(shelf: Shelf, begin: Begin) -> None:
    first = next(iter(shelf.releases))
    daemon = begin().until_synced()
    second = shelf.publish({**FILES, "a.py": b"second\n"})
    daemon.sync()
    daemon.kill()

    pinned = begin(S3_SYNC_REVISION=first)
    assert first == pinned.wait_until_synced()["revision"]
    assert FILES == consumed(pinned.target)
    assert pinned.get("/readyz").json()["revision"] == first
    pinned.kill()
    assert second.revision == begin().wait_until_synced()["revision"]


# --- a gate


def test_gate_refuses_a_release_and_a_roll_back_makes_it_content(
    s3: FakeS3, shelf: Shelf, target: Path, begin: Begin
) -> None:
    first = shelf.releases[next(iter(shelf.releases))]
    daemon = begin(S3_SYNC_GATE="syntax").until_synced()
    bad = shelf.publish({**FILES, "a.py": b"def broken(:\n", "pkg/b.py": b"fine = 1\n"})
    daemon.sync()

    refused = daemon.wait_for_event("revision_refused")
    assert ("a.py", bad.revision) == (refused["path"], refused["revision"])
    assert FILES == consumed(target)
    assert 200 == daemon.get("/readyz").status
    assert "revision_refused" == daemon.get("/readyz").json()["reason"]
    assert first.revision == record(target)["revision"]

    shelf.point_to(first)
    daemon.sync()

    assert daemon.get("/readyz").json()["reason"] is None
    assert FILES == consumed(target)
    s3.forget()
    daemon.sync()
    assert {"pointer": 1, "manifest": 0, "bundle": 0} == parts(s3.requests)
