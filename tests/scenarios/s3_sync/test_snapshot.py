"""The snapshot layout: `current` shows one complete revision, and heals."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenarios.s3_sync.conftest import StartDaemon
from tests.scenarios.s3_sync.snapshots import (
    SNAPSHOT,
    A,
    B,
    SwappingS3,
    current,
    facts,
    shown,
    snapshot_leftovers,
    snapshots,
    wait_until_shown,
)
from tests.support.fake_s3 import error, is_get
from tests.support.volumes import fill_up, small_volume
from tests.support.waiting import wait_until


@pytest.fixture
def s3() -> Iterator[SwappingS3]:
    """A bucket with revision A."""
    with SwappingS3(A) as s3:
        yield s3


def downloads(s3: SwappingS3) -> list[str]:
    """The paths of the GETs since the last look."""
    paths = [request.path.partition("/dags/")[2] for request in s3.seen(is_get())]
    s3.forget()
    return paths


# --- one revision after another


def test_change_of_one_file_among_many_costs_one_download_and_touches_no_other(
    s3: SwappingS3, target: Path, start: StartDaemon
) -> None:
    many = {f"pkg{number % 7}/file{number}.py": b"# %d" % number for number in range(400)}
    s3.swap(many)
    daemon = start(SNAPSHOT).until_synced()
    before = facts(target)
    downloads(s3)
    changed = many | {"pkg3/file3.py": b"# changed", "pkg9/new.py": b"# new"}
    del changed["pkg4/file4.py"]
    s3.swap(changed)

    finished = daemon.sync()

    assert ["pkg3/file3.py", "pkg9/new.py"] == sorted(downloads(s3))
    assert (2, 1) == (finished["files_published"], finished["files_deleted"])
    assert changed == shown(target)
    after = facts(target)
    same = many.keys() - {"pkg3/file3.py", "pkg4/file4.py"}
    assert {path: before[path] for path in same} == {path: after[path] for path in same}
    assert before["pkg3/file3.py"][0] != after["pkg3/file3.py"][0]
    assert [] == snapshot_leftovers(target)


def test_old_snapshots_stay_by_number(s3: SwappingS3, target: Path, start: StartDaemon) -> None:
    settings = {"S3_SYNC_RETAIN_COUNT": "2", "S3_SYNC_RETAIN_FOR": "0", "S3_SYNC_FSYNC": "true"}
    daemon = start(SNAPSHOT | settings).until_synced()
    published = [current(target)]
    for number in range(6):
        s3.swap(A | {"a.py": b"%d" % number})
        daemon.sync()
        published.append(current(target))
        daemon.sync()
        assert set(published[-3:]) == snapshots(target)
    daemon.terminate()
    daemon.start().wait_until_synced()

    assert set(published[-3:]) == snapshots(target)
    assert [] == snapshot_leftovers(target)


def test_one_object_that_cannot_be_read_holds_back_itself(
    s3: SwappingS3, target: Path, start: StartDaemon
) -> None:
    daemon = start(SNAPSHOT).until_synced()
    s3.inject(error(403, "AccessDenied"), is_get("dags/pkg/c.py"))
    s3.swap(B)
    rest = {path: body for path, body in B.items() if path != "pkg/c.py"}
    for _ in range(5):
        ended = daemon.sync()
        assert ("partial", "access_denied_get") == (ended["result"], ended["reason"]), ended
        found = shown(target)
        assert rest == {path: body for path, body in found.items() if path != "pkg/c.py"}
        assert A.get("pkg/c.py") == found.get("pkg/c.py")  # as it was before
        assert 200 == daemon.get("/readyz").status
        assert os.readlink(target / "current").rpartition("/")[2].startswith("partial-")
    s3.heal()
    daemon.sync()

    assert B == shown(target)
    assert [] == snapshot_leftovers(target)


@pytest.mark.parametrize("delete", ["none", "all"])
def test_what_is_deleted(delete: str, s3: SwappingS3, target: Path, start: StartDaemon) -> None:
    daemon = start({**SNAPSHOT, "S3_SYNC_DELETE": delete}).until_synced()
    (target / "current/foreign.txt").write_bytes(b"theirs")
    (target / "current/__pycache__").mkdir()
    (target / "current/__pycache__/a.pyc").write_bytes(b"bytecode")
    (target / ".s3-sync/tree/foreign.txt").write_bytes(b"theirs")
    daemon.sync()
    theirs = {} if delete == "all" else {"foreign.txt": b"theirs"}

    assert A | theirs | {"__pycache__/a.pyc": b"bytecode"} == shown(target)
    s3.swap(B)
    daemon.sync()
    kept = {"only/in_a.py": A["only/in_a.py"]} if delete == "none" else {}
    assert B | kept == shown(target)
    daemon.terminate()
    daemon.start().wait_until_synced()
    assert B | kept == shown(target)


def test_empty_listing_and_deletions_change_nothing_until_they_may(
    s3: SwappingS3, target: Path, start: StartDaemon
) -> None:
    daemon = start(SNAPSHOT).until_synced()
    s3.swap({})

    assert "source_empty" == daemon.sync()["reason"]
    assert A == shown(target)
    daemon.terminate()
    daemon.environment["S3_SYNC_ALLOW_EMPTY"] = "true"
    daemon.start().wait_until_synced()
    assert {} == shown(target)
    s3.swap(A)
    daemon.sync()
    assert A == shown(target)


# --- processes


def test_second_daemon_stands_by_ready_and_takes_over(s3: SwappingS3, start: StartDaemon) -> None:
    first = start(SNAPSHOT).until_synced()
    second = start(SNAPSHOT, interval="0.2")
    second.wait_for_event("target_waiting")
    second.wait_until_ready()
    s3.swap(B)
    first.sync()
    revision = current(first.target)
    wait_until(
        lambda: second.get("/readyz").json()["revision"] == revision, "the stand-by sees it too"
    )
    first.kill()
    second.wait_for_event("target_acquired")
    s3.swap(A)
    wait_until_shown(second, A)

    assert [] == snapshot_leftovers(first.target)


def test_one_shot(s3: SwappingS3, target: Path, start: StartDaemon) -> None:
    settings = {**SNAPSHOT, "S3_SYNC_ONE_SHOT": "true", "S3_SYNC_FSYNC": "true"}
    for files in (A, B):
        s3.swap(files)
        assert 0 == start(settings).wait_for_exit().code
        assert files == shown(target)
    assert [] == snapshot_leftovers(target)


def test_one_shot_that_lacks_one_object_says_so(s3: SwappingS3, start: StartDaemon) -> None:
    s3.inject(error(403, "AccessDenied"), is_get("dags/pkg/c.py"))
    daemon = start(SNAPSHOT | {"S3_SYNC_ONE_SHOT": "true"}, interval="0.2")

    assert 0 == daemon.wait_for_exit().code
    assert "pkg/c.py" not in shown(daemon.target)
    assert 3 == len(daemon.find_events("cycle_finished", result="partial"))
    assert ["pkg/c.py"] == [event["path"] for event in daemon.find_events("object_unread")]


def test_full_volume_keeps_the_revision_whole_and_recovers(
    s3: SwappingS3, tmp_path: Path, start: StartDaemon
) -> None:
    with small_volume(tmp_path / "volume", "1m") as volume:
        target = volume / "dags"
        daemon = start(SNAPSHOT, target=target).until_synced()
        s3.swap(B | {"big.bin": bytes(700_000)})
        daemon.sync()
        both = B | {f"many/file{number}.py": b"#" * 3_000 for number in range(60)}
        fill_up(volume / "foreign.bin")
        s3.swap(both | {"big.bin": bytes(700_001)})
        for _ in range(2):
            failed = daemon.sync()
            assert "target_full" == failed["reason"], failed
            assert B | {"big.bin": bytes(700_000)} == shown(target)
            assert 200 == daemon.get("/readyz").status
        daemon.kill()
        daemon.start().wait_for_event("cycle_failed", reason="target_full")
        assert B | {"big.bin": bytes(700_000)} == shown(target)
        (volume / "foreign.bin").unlink()
        s3.swap(both)
        wait_until_shown(daemon, both)
        daemon.sync()

        assert [] == snapshot_leftovers(target)
        daemon.kill()
