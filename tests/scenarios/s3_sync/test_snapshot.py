"""
The snapshot layout: `current` shows one complete revision, and heals.
"""

import os
import stat
import time
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
    overwrite,
    shown,
    snapshot_leftovers,
    snapshots,
    wait_until_shown,
)
from tests.scenarios.s3_sync.storms import volume as mounted
from tests.scenarios.s3_sync.test_volume import fill_up
from tests.support.fake_s3 import error, is_get
from tests.support.waiting import wait_until

SECOND_NS = 1_000_000_000


def downloads(s3: SwappingS3) -> list[str]:
    """
    The paths of the GETs since the last look.
    """
    paths = [request.path.partition("/dags/")[2] for request in s3.seen(is_get())]
    s3.forget()
    return paths


# --- one revision after another


def test_change_of_one_file_among_many_costs_one_download_and_touches_no_other(
    swapping: SwappingS3, target: Path, start: StartDaemon
) -> None:
    many = {f"pkg{number % 7}/file{number}.py": b"# %d" % number for number in range(400)}
    swapping.swap(many)
    daemon = start(swapping, target, SNAPSHOT)
    daemon.wait_until_synced()
    before = facts(target)
    downloads(swapping)
    changed = many | {"pkg3/file3.py": b"# changed", "pkg9/new.py": b"# new"}
    del changed["pkg4/file4.py"]
    swapping.swap(changed)

    finished = daemon.sync()

    assert ["pkg3/file3.py", "pkg9/new.py"] == sorted(downloads(swapping))
    assert (2, 1) == (finished["files_published"], finished["files_deleted"])
    assert changed == shown(target)
    after = facts(target)
    same = many.keys() - {"pkg3/file3.py", "pkg4/file4.py"}
    assert {path: before[path] for path in same} == {path: after[path] for path in same}
    assert before["pkg3/file3.py"][0] != after["pkg3/file3.py"][0]
    assert [] == snapshot_leftovers(target)


def test_revision_that_comes_back_is_new_to_whoever_compares_times(
    swapping: SwappingS3, target: Path, start: StartDaemon
) -> None:
    daemon = start(swapping, target, SNAPSHOT)
    daemon.wait_until_synced()
    revision = current(target)
    seen = [facts(target)]
    for files in (B, A, B, A):
        swapping.swap(files)
        assert "changed" == daemon.sync()["result"]
        assert files == shown(target)
        seen.append(facts(target))

    assert revision == current(target)
    assert 2 == len(snapshots(target))
    for path in ("a.py", "pkg/c.py"):
        seconds = [facts[path][1] // SECOND_NS for facts in seen]
        assert sorted(set(seconds)) == seconds, path
    for path in ("b.py", "pkg/sub/d.py"):
        assert 1 == len({facts[path] for facts in seen}), path
    assert [] == snapshot_leftovers(target)


def test_revision_that_comes_back_is_whole_though_its_old_snapshot_was_damaged(
    swapping: SwappingS3, target: Path, start: StartDaemon
) -> None:
    daemon = start(swapping, target, SNAPSHOT)
    daemon.wait_until_synced()
    old = target / ".s3-sync/snapshots" / current(target)
    swapping.swap(B)
    daemon.sync()
    overwrite(old / "a.py", b"x of A")
    (old / "only/in_a.py").unlink()
    (old / "pkg/c.py").unlink()
    (old / "pkg/c.py").symlink_to("/etc/passwd")
    (old / "b.py").unlink()
    (old / "foreign.txt").write_bytes(b"theirs")
    swapping.swap(A)
    daemon.sync()

    assert A | {"foreign.txt": b"theirs"} == shown(target)
    assert Path("/etc/passwd").stat().st_size > 10


def test_files_are_write_protected_and_have_no_other_mode(
    swapping: SwappingS3, target: Path, start: StartDaemon
) -> None:
    daemon = start(swapping, target, {**SNAPSHOT, "S3_SYNC_FILE_MODE": "0775"})
    daemon.wait_until_synced()
    swapping.swap(B)
    daemon.sync()

    modes = {
        stat.S_IMODE(path.lstat().st_mode)
        for path in (target / ".s3-sync").rglob("*.py")
        if path.is_file()
    }
    assert {0o555} == modes


def test_old_snapshots_stay_by_number(
    swapping: SwappingS3, target: Path, start: StartDaemon
) -> None:
    settings = {"S3_SYNC_RETAIN_COUNT": "2", "S3_SYNC_RETAIN_FOR": "0", "S3_SYNC_FSYNC": "true"}
    daemon = start(swapping, target, SNAPSHOT | settings)
    daemon.wait_until_synced()
    published = [current(target)]
    for number in range(6):
        swapping.swap(A | {"a.py": b"%d" % number})
        daemon.sync()
        published.append(current(target))
        daemon.sync()
        assert set(published[-3:]) == snapshots(target)
    daemon.terminate()
    daemon.start().wait_until_synced()

    assert set(published[-3:]) == snapshots(target)
    assert [] == snapshot_leftovers(target)


def test_old_snapshots_stay_for_a_time(
    swapping: SwappingS3, target: Path, start: StartDaemon
) -> None:
    settings = {"S3_SYNC_RETAIN_COUNT": "0", "S3_SYNC_RETAIN_FOR": "3s"}
    daemon = start(swapping, target, SNAPSHOT | settings, interval="0.2")
    daemon.wait_until_synced()
    first = target / ".s3-sync/snapshots" / current(target)
    replaced_at = time.monotonic()
    for files in (B, A | {"a.py": b"third"}):
        swapping.swap(files)
        wait_until_shown(daemon, files)
    daemon.kill()
    daemon.start()
    assert 3 == len(snapshots(target))
    while first.exists():
        age_seconds = time.monotonic() - replaced_at
        assert age_seconds < 60
        assert len(snapshots(target)) == 3 or age_seconds > 3
    assert age_seconds > 2.9
    wait_until(lambda: len(snapshots(target)) == 1, "only the current one is left")
    wait_until(lambda: not snapshot_leftovers(target), "it has cleaned up")


def test_one_object_that_cannot_be_read_holds_the_revision_back(
    swapping: SwappingS3, target: Path, start: StartDaemon
) -> None:
    daemon = start(swapping, target, SNAPSHOT)
    daemon.wait_until_synced()
    swapping.inject(error(403, "AccessDenied"), is_get("dags/pkg/c.py"))
    swapping.swap(B)
    for _ in range(5):  # more than the cycles after which in place nothing waits for a file
        failed = daemon.sync()
        assert "access_denied" == failed["reason"], failed
        assert A == shown(target)
        assert 200 == daemon.get("/readyz").status
    swapping.heal()
    daemon.sync()

    assert B == shown(target)
    assert [] == snapshot_leftovers(target)


@pytest.mark.parametrize("delete", ["none", "all"])
def test_what_is_deleted(
    delete: str, swapping: SwappingS3, target: Path, start: StartDaemon
) -> None:
    daemon = start(swapping, target, {**SNAPSHOT, "S3_SYNC_DELETE": delete})
    daemon.wait_until_synced()
    (target / "current/foreign.txt").write_bytes(b"theirs")
    (target / "current/__pycache__").mkdir()
    (target / "current/__pycache__/a.pyc").write_bytes(b"bytecode")
    (target / ".s3-sync/tree/foreign.txt").write_bytes(b"theirs")
    daemon.sync()
    theirs = {} if delete == "all" else {"foreign.txt": b"theirs"}

    assert A | theirs | {"__pycache__/a.pyc": b"bytecode"} == shown(target)
    swapping.swap(B)
    daemon.sync()
    kept = {"only/in_a.py": A["only/in_a.py"]} if delete == "none" else {}
    assert B | kept == shown(target)
    daemon.terminate()
    daemon.start().wait_until_synced()
    assert B | kept == shown(target)


def test_empty_listing_and_deletions_change_nothing_until_they_may(
    swapping: SwappingS3, target: Path, start: StartDaemon
) -> None:
    daemon = start(swapping, target, SNAPSHOT)
    daemon.wait_until_synced()
    swapping.swap({})

    assert "source_empty" == daemon.sync()["reason"]
    assert A == shown(target)
    daemon.terminate()
    daemon.environment["S3_SYNC_ALLOW_EMPTY"] = "true"
    daemon.start().wait_until_synced()
    assert {} == shown(target)
    swapping.swap(A)
    daemon.sync()
    assert A == shown(target)


# --- processes


def test_second_daemon_stands_by_ready_and_takes_over(
    swapping: SwappingS3, target: Path, start: StartDaemon
) -> None:
    first = start(swapping, target, SNAPSHOT)
    first.wait_until_synced()
    second = start(swapping, target, SNAPSHOT, interval="0.2")
    second.wait_for_event("target_waiting")
    second.wait_until_ready()
    swapping.swap(B)
    first.sync()
    revision = current(target)
    wait_until(
        lambda: second.get("/readyz").json()["revision"] == revision, "the stand-by sees it too"
    )
    first.kill()
    second.wait_for_event("target_acquired")
    swapping.swap(A)
    wait_until_shown(second, A)

    assert [] == snapshot_leftovers(target)


def test_one_shot(swapping: SwappingS3, target: Path, start: StartDaemon) -> None:
    settings = {**SNAPSHOT, "S3_SYNC_ONE_SHOT": "true", "S3_SYNC_FSYNC": "true"}
    for files in (A, B):
        swapping.swap(files)
        assert 0 == start(swapping, target, settings).wait_for_exit().code
        assert files == shown(target)
    assert [] == snapshot_leftovers(target)


def test_one_shot_that_lacks_one_object_shows_nothing(
    swapping: SwappingS3, target: Path, start: StartDaemon
) -> None:
    swapping.inject(error(403, "AccessDenied"), is_get("dags/pkg/c.py"))
    settings = {"S3_SYNC_ONE_SHOT": "true", "S3_SYNC_ONE_SHOT_DEADLINE": "2s"}
    daemon = start(swapping, target, SNAPSHOT | settings, interval="0.2")

    assert 3 == daemon.wait_for_exit().code
    assert not os.path.lexists(target / "current")
    assert [] == os.listdir(target / ".s3-sync/snapshots")


def test_dry_run_touches_nothing(swapping: SwappingS3, target: Path, start: StartDaemon) -> None:
    daemon = start(swapping, target, {**SNAPSHOT, "S3_SYNC_DRY_RUN": "true"})
    planned = daemon.wait_for_event("plan_made")

    assert len(A) == planned["files_to_publish"]
    assert not target.exists()


def test_full_volume_keeps_the_revision_whole_and_recovers(
    swapping: SwappingS3, tmp_path: Path, start: StartDaemon
) -> None:
    with mounted("-o", "size=1m")(tmp_path) as volume:
        target = volume / "dags"
        daemon = start(swapping, target, SNAPSHOT)
        daemon.wait_until_synced()
        swapping.swap(B | {"big.bin": bytes(700_000)})
        daemon.sync()
        both = B | {f"many/file{number}.py": b"#" * 3_000 for number in range(60)}
        fill_up(volume / "foreign.bin")
        swapping.swap(both | {"big.bin": bytes(700_001)})
        for _ in range(2):
            failed = daemon.sync()
            assert "target_full" == failed["reason"], failed
            assert B | {"big.bin": bytes(700_000)} == shown(target)
            assert 200 == daemon.get("/readyz").status
        daemon.kill()
        daemon.start().wait_for_event("cycle_failed", reason="target_full")
        assert B | {"big.bin": bytes(700_000)} == shown(target)
        (volume / "foreign.bin").unlink()
        swapping.swap(both)
        wait_until_shown(daemon, both)
        daemon.sync()

        assert [] == snapshot_leftovers(target)
        daemon.kill()


def test_volume_without_a_free_inode_keeps_the_revision_whole_and_recovers(
    swapping: SwappingS3, tmp_path: Path, start: StartDaemon
) -> None:
    """
    The files fit, but not the folders of one more snapshot.
    """
    with mounted("-o", "size=4m,nr_inodes=90")(tmp_path) as volume:
        target = volume / "dags"
        files = {f"folder{number}/a.py": b"%d" % number for number in range(12)}
        swapping.swap(files)
        daemon = start(swapping, target, SNAPSHOT)
        daemon.wait_until_synced()
        assert files == shown(target)
        number = 0
        while daemon.sync()["event"] == "cycle_finished":
            before = shown(target)
            number += 1
            swapping.swap(files | {"folder1/a.py": b"changed %d" % number})
            assert number < 10
        assert before == shown(target)
        assert "target_full" == daemon.sync()["reason"]
        assert before == shown(target)
        daemon.terminate()
        daemon.environment |= {"S3_SYNC_RETAIN_COUNT": "0", "S3_SYNC_RETAIN_FOR": "0"}
        daemon.start().wait_until_synced()

        assert files | {"folder1/a.py": b"changed %d" % number} == shown(target)
        daemon.kill()
