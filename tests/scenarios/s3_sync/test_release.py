"""
The source `release` from outside: what it asks, what it keeps, what it does with pins.
"""

import json
import os
import stat
from pathlib import Path

import pytest

from tests.scenarios.s3_sync.siege import LAYOUTS
from tests.scenarios.s3_sync.snapshots import consumed
from tests.support.daemon import Daemon
from tests.support.fake_s3 import FakeS3, is_list
from tests.support.loopback import Request
from tests.support.scripted import daemon_for
from tests.support.shelf import PREFIX, RELEASE, Shelf, is_bundle, is_manifest, is_pointer
from tests.support.shelf import release_daemon as daemon_of

FILES = {
    "a.py": b"print('a')\n" * 90,
    "pkg/b.py": b"print('b')\n" * 300,
    "pkg/deep/c.sql": b"select 1;\n" * 10,
    "pkg/empty.py": b"",
    "run.sh": b"#!/bin/sh\nexit 0\n",
    "z.bin": os.urandom(5_000),
}

pytestmark = pytest.mark.parametrize("layout", LAYOUTS)


@pytest.fixture
def shelf(s3: FakeS3) -> Shelf:
    """
    A shelf with one release on the scripted server.
    """
    for key in list(s3.objects):
        s3.delete(key)
    shelf = Shelf.at(s3)
    shelf.publish(FILES, executable={"run.sh"})
    return shelf


def settings_of(layout: str, **more: str) -> dict[str, str]:
    return {"S3_SYNC_LAYOUT": layout, **more}


def parts(requests: list[Request]) -> dict[str, int]:
    """
    How often each of the three objects was asked for.
    """
    matches = {"pointer": is_pointer, "manifest": is_manifest, "bundle": is_bundle}
    found = {part: sum(map(match, requests)) for part, match in matches.items()}
    assert sum(found.values()) == len(requests), requests
    return found


def facts(target: Path, path: str) -> os.stat_result:
    """
    What a consumer finds at a path, in either layout.
    """
    root = target / "current" if (target / "current").is_symlink() else target
    return (root / path).stat()


def record(target: Path) -> dict[str, object]:
    """
    What is on record as published.
    """
    found: dict[str, object] = json.loads((target / ".s3-sync/published.json").read_text())
    return found


# --- requests: docs/explanation/what-polling-costs.md has the same numbers


def test_empty_volume_costs_three_requests_and_a_poll_one(
    s3: FakeS3, shelf: Shelf, target: Path, layout: str
) -> None:
    with daemon_of(s3, target, settings_of(layout)) as daemon:
        daemon.wait_until_synced()
        assert {"pointer": 1, "manifest": 1, "bundle": 1} == parts(s3.requests)

        s3.forget()
        for _ in range(10):
            assert "unchanged" == daemon.sync()["result"]

        assert {"pointer": 10, "manifest": 0, "bundle": 0} == parts(s3.requests)
        assert all("if-none-match" in request.headers for request in s3.requests)
        assert FILES == consumed(target)


def test_new_release_costs_three_requests_and_takes_what_changed(
    s3: FakeS3, shelf: Shelf, target: Path, layout: str
) -> None:
    with daemon_of(s3, target, settings_of(layout)) as daemon:
        daemon.wait_until_synced()
        release = shelf.publish(
            {**FILES, "pkg/b.py": b"print('new')\n" * 50}, executable={"run.sh"}
        )
        s3.forget()

        finished = daemon.sync()

        assert "changed" == finished["result"]
        assert {"pointer": 1, "manifest": 1, "bundle": 1} == parts(s3.requests)
        row = release.manifest.files["pkg/b.py"]
        assert row.stored_bytes == finished["downloaded_bytes"]
        (asked,) = s3.seen(is_bundle)
        assert f"bytes={row.offset}-{row.offset + row.stored_bytes - 1}" == asked.headers["range"]


def test_restart_with_nothing_new_downloads_nothing(
    s3: FakeS3, shelf: Shelf, target: Path, layout: str
) -> None:
    with daemon_of(s3, target, settings_of(layout)) as daemon:
        daemon.wait_until_synced()
        daemon.terminate()
        s3.forget()
        daemon.start()

        assert "unchanged" == daemon.wait_until_synced()["result"]
        assert {"pointer": 1, "manifest": 1, "bundle": 0} == parts(s3.requests)
        assert 200 == daemon.get("/readyz").status


def test_roll_back_costs_what_a_new_release_costs(
    s3: FakeS3, shelf: Shelf, target: Path, layout: str
) -> None:
    first = shelf.releases[next(iter(shelf.releases))]
    with daemon_of(s3, target, settings_of(layout)) as daemon:
        daemon.wait_until_synced()
        shelf.publish({**FILES, "a.py": b"print('bad')\n"}, executable={"run.sh"})
        daemon.sync()
        s3.forget()
        shelf.point_to(first)

        finished = daemon.sync()

        assert ("changed", first.revision) == (finished["result"], finished["revision"])
        assert {"pointer": 1, "manifest": 1, "bundle": 1} == parts(s3.requests)
        assert FILES == consumed(target)


# --- what is kept


def test_unchanged_files_keep_their_inode_or_link_and_time(
    s3: FakeS3, shelf: Shelf, target: Path, layout: str
) -> None:
    with daemon_of(s3, target, settings_of(layout)) as daemon:
        daemon.wait_until_synced()
        before = {path: facts(target, path) for path in FILES}
        shelf.publish({**FILES, "a.py": b"print('other')\n"}, executable={"run.sh"})
        daemon.sync()
        after = {path: facts(target, path) for path in FILES}

        for path in FILES.keys() - {"a.py"}:
            assert before[path].st_ino == after[path].st_ino
            assert before[path].st_mtime_ns == after[path].st_mtime_ns
        assert before["a.py"].st_ino != after["a.py"].st_ino
        assert int(before["a.py"].st_mtime) < int(after["a.py"].st_mtime)


def test_executable_is_executable_and_nothing_else_is(
    s3: FakeS3, shelf: Shelf, target: Path, layout: str
) -> None:
    with daemon_of(s3, target, settings_of(layout)) as daemon:
        daemon.wait_until_synced()
        modes = {path: stat.S_IMODE(facts(target, path).st_mode) for path in FILES}
        assert {path for path, mode in modes.items() if mode & 0o111} == {"run.sh"}

        shelf.publish(FILES, executable={"a.py"})

        assert "changed" == daemon.sync()["result"]
        assert facts(target, "a.py").st_mode & 0o111 == 0o111
        assert not facts(target, "run.sh").st_mode & 0o111


def test_files_of_others_stay(s3: FakeS3, shelf: Shelf, target: Path, layout: str) -> None:
    with daemon_of(s3, target, settings_of(layout)) as daemon:
        daemon.wait_until_synced()
        (target / "foreign.log").write_text("theirs")
        shelf.publish({"a.py": b"alone\n"})
        daemon.sync()

        assert "theirs" == (target / "foreign.log").read_text()
        assert b"alone\n" == consumed(target)["a.py"]
        assert "pkg/b.py" not in consumed(target)


def test_damage_is_healed_from_the_bundle(
    s3: FakeS3, shelf: Shelf, target: Path, layout: str
) -> None:
    with daemon_of(s3, target, settings_of(layout)) as daemon:
        daemon.wait_until_synced()
        root = (target / "current").resolve() if layout == "snapshot" else target
        (root / "a.py").unlink()
        (root / "pkg").chmod(0o755)

        for _ in range(12):
            daemon.sync()

        assert FILES == consumed(target)


# --- sources


def test_listing_is_followed_by_releases_without_a_download(
    s3: FakeS3, target: Path, layout: str
) -> None:
    """
    The same files, first listed, then released, then listed again: nothing is touched.
    """
    for key in list(s3.objects):
        s3.delete(key)
    for path, body in FILES.items():
        s3.put(f"plain/{path}", body)
    Shelf.at(s3).publish(FILES)
    listing = daemon_for(s3, target, key_path="plain", settings=settings_of(layout))
    with listing as daemon:
        daemon.wait_until_synced()
        assert "listing" == record(target)["kind"]
    before = {path: facts(target, path).st_mtime_ns for path in FILES}
    s3.forget()

    with daemon_of(s3, target, settings_of(layout)) as daemon:
        daemon.wait_until_synced()
        assert [] == s3.seen(is_bundle)
        assert [] == s3.seen(is_list)
        assert "release" == record(target)["kind"]
        assert f"s3://{s3.bucket}/{PREFIX}" == record(target)["source"]
    assert before == {path: facts(target, path).st_mtime_ns for path in FILES}

    with listing as daemon:
        assert 0 == daemon.wait_until_synced()["downloaded_bytes"]
        assert "listing" == record(target)["kind"]
    assert before == {path: facts(target, path).st_mtime_ns for path in FILES}


# --- pins


def pinned(s3: FakeS3, target: Path, layout: str, revision: str, **more: str) -> Daemon:
    return daemon_of(s3, target, settings_of(layout, S3_SYNC_REVISION=revision, **more))


def test_one_shot_fetches_the_pinned_release_though_another_is_current(
    s3: FakeS3, shelf: Shelf, target: Path, layout: str
) -> None:
    first = next(iter(shelf.releases))
    shelf.publish({"a.py": b"another\n"})

    with pinned(s3, target, layout, first, S3_SYNC_ONE_SHOT="true") as daemon:
        assert 0 == daemon.wait_for_exit().code

    assert {"pointer": 0, "manifest": 1, "bundle": 1} == parts(s3.requests)
    assert FILES == consumed(target)
    assert (first, "release") == (record(target)["revision"], record(target)["kind"])


def test_pinned_daemon_asks_nothing_more_and_bears_every_other_release(
    s3: FakeS3, shelf: Shelf, target: Path, layout: str
) -> None:
    first = next(iter(shelf.releases))
    with pinned(s3, target, layout, first) as daemon:
        daemon.wait_until_synced()
        shelf.publish({"a.py": b"another\n"})
        shelf.put("current.json", b"not even JSON")
        s3.forget()

        for _ in range(5):
            assert "unchanged" == daemon.sync()["result"]

        assert [] == s3.requests
        assert FILES == consumed(target)


def test_pin_that_is_not_there_is_named(
    s3: FakeS3, shelf: Shelf, target: Path, layout: str
) -> None:
    with pinned(s3, target, layout, "0123456789ab", S3_SYNC_ONE_SHOT="true") as daemon:
        failed = daemon.wait_for_event("cycle_failed", 60)

        assert "release_missing" == failed["reason"]
        assert "releases/0123456789ab.json" in failed["error"]
        assert "s3-sync releases" in failed["advice"]
    assert {} == consumed(target)


def test_one_shot_gives_up_on_a_pin_that_is_not_there(
    s3: FakeS3, shelf: Shelf, target: Path, layout: str
) -> None:
    one_shot = {"S3_SYNC_ONE_SHOT": "true", "S3_SYNC_ONE_SHOT_DEADLINE": "1s"}
    with pinned(s3, target, layout, "0123456789ab", **one_shot) as daemon:
        assert 3 == daemon.wait_for_exit().code


def test_pin_to_another_release_takes_over_the_volume(
    s3: FakeS3, shelf: Shelf, target: Path, layout: str
) -> None:
    first = next(iter(shelf.releases))
    with daemon_of(s3, target, settings_of(layout)) as daemon:
        daemon.wait_until_synced()
        second = shelf.publish({**FILES, "a.py": b"second\n"})
        daemon.sync()
    s3.forget()

    with pinned(s3, target, layout, first) as daemon:
        assert first == daemon.wait_until_synced()["revision"]
        assert FILES == consumed(target)
        assert daemon.get("/readyz").json()["revision"] == first
    with daemon_of(s3, target, settings_of(layout)) as daemon:
        assert second.revision == daemon.wait_until_synced()["revision"]


# --- before the first release


def test_waits_for_the_first_release_and_is_not_ready_until_then(
    s3: FakeS3, target: Path, layout: str
) -> None:
    with daemon_of(s3, target, settings_of(layout)) as daemon:
        failed = daemon.wait_for_event("cycle_failed", 60)
        assert "release_missing" == failed["reason"]
        assert "s3-sync publish" in failed["advice"]
        assert 503 == daemon.get("/readyz").status

        seen = len(daemon.events)
        Shelf.at(s3).publish(FILES)
        daemon.sighup()

        daemon.wait_for_event("cycle_finished", 60, seen, result="changed")
        assert 200 == daemon.get("/readyz").status


def test_gate_refuses_a_release_and_a_roll_back_makes_it_content(
    s3: FakeS3, shelf: Shelf, target: Path, layout: str
) -> None:
    first = shelf.releases[next(iter(shelf.releases))]
    with daemon_of(s3, target, settings_of(layout, S3_SYNC_GATE="syntax")) as daemon:
        daemon.wait_until_synced()
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


def test_settings_that_mean_nothing_with_releases_are_refused_by_name(
    s3: FakeS3, target: Path, layout: str
) -> None:
    odd = {"S3_SYNC_EXCLUDE": "*.md", "S3_SYNC_SETTLE": "5s", "S3_SYNC_DELETE": "none"}
    with daemon_of(s3, target, settings_of(layout, **odd)) as daemon:
        assert 2 == daemon.wait_for_exit().code
        assert all(name in daemon.log() for name in odd)

    with daemon_for(s3, target, settings={"S3_SYNC_REVISION": "0123456789ab"}) as daemon:
        assert 2 == daemon.wait_for_exit().code
        assert "S3_SYNC_REVISION" in daemon.log()

    with daemon_of(s3, target, settings_of(layout, S3_SYNC_REVISION="latest")) as daemon:
        assert 2 == daemon.wait_for_exit().code
        assert "latest" in daemon.log()
    assert "release" == RELEASE["S3_SYNC_SOURCE"]
