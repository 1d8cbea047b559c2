"""
The volume is full, read-only or another user's, or its file system lacks something:
published files stay, the reason is reported.

Mounting a small volume requires root; otherwise these tests are skipped.
"""

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import Texts
from tests.scenarios.s3_sync.conftest import IN_BOTH_LAYOUTS, StartDaemon
from tests.support.aws.fake_s3 import FakeS3, is_get
from tests.support.machine.refusing import CHMOD, SYMLINK, refusing
from tests.support.machine.users import as_user
from tests.support.machine.volumes import fill_up, ignoring_case, mount, small_volume
from tests.support.s3_sync.scripted import FILES, published, staged
from tests.support.s3_sync.shelf import RELEASE, Shelf
from tests.support.s3_sync.snapshots import SNAPSHOT, consumed
from tests.support.waiting import wait_until

MIB = 1 << 20
ENV = Path("/usr/bin/env")
"""Runs the program of its arguments."""
LAYOUTS = [{}, SNAPSHOT, SNAPSHOT | {"S3_SYNC_GATE": "syntax"}]


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """A volume of 1 MiB."""
    with small_volume(tmp_path / "volume", "1m") as path:
        yield path


@pytest.mark.parametrize(
    ("size", "layout"),
    [(800_000, {}), (5 * MIB, {}), (800_000, SNAPSHOT), (5 * MIB, SNAPSHOT)],
)
def test_keeps_published_files_on_a_full_volume_and_recovers(
    s3: FakeS3, volume: Path, start: StartDaemon, size: int, layout: Texts
) -> None:
    daemon = start(layout, target=volume / "dags").until_synced()
    (volume / "foreign.bin").write_bytes(bytes(MIB // 2))
    s3.put("dags/a.py", b"retained")
    daemon.sync()
    s3.put("dags/a.py", b"changed, but there is no room for all")
    s3.put("dags/big.bin", os.urandom(size))

    # a snapshot waits for more
    failed = [daemon.sync() for _ in range(3 if layout else 1)][-1]

    assert failed["reason"] == "target_full", failed
    assert str(volume) in failed["error"]
    assert "the node's disk" in failed["advice"]
    waits = daemon.find_events("cycle_finished", reason="source_unsettled")
    assert bool(layout) is bool(waits)
    assert [] == [one for one in waits if "the node's disk" not in one["advice"]]
    files = consumed(volume / "dags")
    assert "big.bin" not in files
    assert files["pkg/b.py"] == FILES["pkg/b.py"]
    assert files["a.py"] in (b"retained", s3.objects["dags/a.py"].body)
    assert staged(volume / "dags") == []
    assert daemon.is_ready()
    assert daemon.reason() == "target_full"
    s3.delete("dags/big.bin")
    assert daemon.sync()["event"] == "cycle_finished"
    assert consumed(volume / "dags")["a.py"] == s3.objects["dags/a.py"].body


def test_deletions_make_room_for_what_is_new(
    s3: FakeS3, volume: Path, start: StartDaemon
) -> None:
    s3.put("dags/old.bin", os.urandom(MIB // 2))
    daemon = start(target=volume / "dags").until_synced()
    s3.delete("dags/old.bin")
    s3.put("dags/new.bin", os.urandom(MIB // 2))

    assert "changed" == daemon.sync()["result"]

    assert {*FILES, "new.bin"} == consumed(volume / "dags").keys()


@pytest.mark.parametrize("restarts", [False, True], ids=["runs", "restarts"])
def test_survives_a_volume_without_a_free_byte(
    s3: FakeS3, volume: Path, start: StartDaemon, restarts: bool
) -> None:
    """
    Not even the list of managed files can grow. Deletions make room, so nothing that
    must be written first may hold them back.
    """
    large = [f"dags/large{number}.py" for number in range(4)]
    s3.put_each(large, b"x = 1\n" * 10_000)
    daemon = start(target=volume / "dags").until_synced()
    fill_up(volume / "foreign.bin")
    many = [
        f"dags/many/a_file_with_a_long_name_{number:050d}.py" for number in range(60)
    ]
    s3.put_each(many, b"x" * 100)

    assert daemon.sync()["reason"] == "target_full"

    assert published(volume / "dags").items() >= FILES.items()
    assert daemon.is_alive()
    s3.delete(*large, *many)
    if restarts:
        daemon.kill()
        daemon.start().wait_for_event("cycle_finished")
    else:
        assert "cycle_finished" == daemon.sync()["event"]
    assert FILES == published(volume / "dags")
    assert daemon.is_ready()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_object_larger_than_the_volume_does_not_prevent_readiness(
    s3: FakeS3, volume: Path, start: StartDaemon, layout: Texts
) -> None:
    s3.put("dags/big.bin", os.urandom(2 * MIB))
    daemon = start(layout, target=volume / "dags")

    daemon.wait_for_event("cycle_finished", result="partial", reason="target_full")
    wait_until(lambda: daemon.sync() and daemon.is_ready(), "it is ready")

    assert consumed(volume / "dags") == FILES
    assert daemon.get("/readyz").json()["shortfall"].startswith("1 file is missing")
    s3.put("dags/a.py", b"changed")
    daemon.sync()
    assert consumed(volume / "dags")["a.py"] == b"changed"


def test_room_is_made_for_the_list_of_a_snapshot_and_the_record(
    s3: FakeS3, tmp_path: Path, start: StartDaemon
) -> None:
    """
    Each file of a new snapshot fits beside the retained ones, and then nothing else
    does.
    """
    s3.put_each((f"dags/{number}.py" for number in range(4)), bytes(40_000))
    with small_volume(tmp_path / "small", "200k") as volume:
        daemon = start(SNAPSHOT, target=volume / "dags").until_synced()
        for number in range(12):
            s3.put("dags/1.py", b"%d" % number + bytes(4_000 + 5_000 * (number % 3)))
            daemon.sync()
            wait_until(lambda: s3.files() == consumed(volume / "dags"), "shown")
        daemon.kill()


def test_older_releases_never_fill_a_small_volume(
    s3: FakeS3, tmp_path: Path, start: StartDaemon
) -> None:
    """8 MiB hold three states of 2 MiB: the oldest goes before its retention ends."""
    shelf = Shelf(s3)
    releases = ({"big.bin": os.urandom(2 * MIB)} for _ in range(7))
    with small_volume(tmp_path / "eight", "8m") as volume:
        shelf.publish(next(releases))
        daemon = start(RELEASE, target=volume / "dags").until_synced()
        for files in releases:
            shelf.publish(files)
            ended = daemon.sync()
            assert "changed" == ended.get("result"), ended
            assert files == consumed(volume / "dags")
            assert daemon.is_ready()
        assert [] == daemon.find_events("cycle_failed")


def test_reports_a_read_only_volume_and_recovers(
    s3: FakeS3, volume: Path, start: StartDaemon
) -> None:
    daemon = start(target=volume / "dags").until_synced()
    assert daemon.terminate().code == 0
    assert mount("-o", "remount,ro", str(volume))
    s3.put("dags/a.py", b"changed")

    failed = daemon.start().wait_for_event("cycle_failed")

    assert failed["reason"] == "target_denied"
    assert "Remove readOnly from the volumeMount or claim." in failed["advice"]
    assert "its kernel's log" in failed["advice"]
    assert published(volume / "dags") == FILES
    assert mount("-o", "remount,rw", str(volume))
    assert daemon.sync()["event"] == "cycle_finished"
    assert published(volume / "dags")["a.py"] == b"changed"


@IN_BOTH_LAYOUTS
def test_each_new_user_of_the_group_continues_without_downloading_again(
    s3: FakeS3, open_folder: Path, start: StartDaemon, layout: Texts
) -> None:
    """
    OpenShift assigns each namespace other users. When a pod mounts the volume,
    Kubernetes sets the group, `g+rw` for files and `g+s` for folders
    (`SetVolumeOwnership` in volume_linux.go).
    """
    target = open_folder / "dags"
    target.mkdir()
    target.chmod(0o777)
    for number, uid in enumerate([50000, 50001, 0, 50002, 50000]):
        s3.forget()
        daemon = start(
            layout, target=target, wrapper=(str(as_user(open_folder, ENV, uid, 2000)),)
        )
        began = daemon.until_synced().find_events("cycle_finished")[0]
        if number:
            assert ("unchanged", []) == (began["result"], s3.seen(is_get()))
        s3.put_all(
            {"a.py": b"a = %d\n" % number, f"by/{number}.py": b"b = 1\n"}, "dags/"
        )
        daemon.sync()
        (target / ("current" if layout else "") / "pkg/b.py").unlink()
        daemon.sync()
        assert s3.files() == consumed(target)
        assert 0 == daemon.terminate().code
        subprocess.run(
            ["chgrp", "--recursive", "--no-dereference", "2000", target], check=True
        )
        subprocess.run(["chmod", "--recursive", "ug+rwX", target], check=True)
        subprocess.run(
            ["find", target, "-type", "d", "-exec", "chmod", "g+s", "{}", "+"]
        )


def test_names_what_a_user_cannot_write_and_publishes_the_rest(
    s3: FakeS3, open_folder: Path, start: StartDaemon
) -> None:
    target = open_folder / "dags"
    target.mkdir(mode=0o755)
    daemon = start(target=target, wrapper=(str(as_user(open_folder, ENV, 50000, 0)),))
    failed = daemon.wait_for_event("cycle_failed")
    assert failed["reason"] == "target_denied"
    assert str(target) in failed["error"] and "50000" in failed["error"]
    assert "fsGroup" in failed["advice"]
    assert daemon.is_alive()
    target.chmod(0o775)
    ended = daemon.sync()
    assert ended["event"] == "cycle_finished", ended

    (target / "roots").mkdir(mode=0o755)
    s3.put_all({"roots/x.py": b"X = 1\n", "a.py": b"A = 2\n"}, "dags/")
    held = daemon.sync()
    assert ("partial", "target_denied") == (held["result"], held["reason"])
    assert published(target) == FILES | {"a.py": b"A = 2\n"}
    assert "1 file is missing" in daemon.get("/readyz").json()["shortfall"]
    daemon.kill()
    left = target / ".s3-sync/staging/of root"
    left.mkdir(mode=0o755)
    (left / "x.py").touch()
    assert "staging" == daemon.start().wait_for_event("leftover_kept")["name"]
    assert 200 == daemon.wait_until_ready().status


def test_another_folder_in_the_place_of_the_target_is_told_and_filled(
    s3: FakeS3, target: Path, start: StartDaemon
) -> None:
    daemon = start().until_synced()
    target.rename(target.with_name("before"))
    target.mkdir()

    daemon.sync()

    assert str(target) == daemon.wait_for_event("target_reopened")["path"]
    assert FILES == published(target)

    # A file there is told in one way.
    target.rename(target.with_name("second"))
    target.write_bytes(b"")

    failed = daemon.sync()

    assert f"cannot open {target} or .s3-sync in it: Not a directory" in failed["error"]
    assert "find out what put it there" in failed["advice"]
    ready = daemon.get("/readyz")
    assert 503 == ready.status
    assert failed["error"] == ready.json()["error"]
    assert f"{target} cannot be read: Not a directory" == ready.json()["problem"]
    seen = len(daemon.events)
    target.unlink()
    assert "changed" == daemon.sync()["result"]
    daemon.wait_for_event("target_reopened", after=seen)
    assert FILES == published(target)


# --- file systems that lack something


@IN_BOTH_LAYOUTS
def test_publishes_where_modes_cannot_be_changed(
    s3: FakeS3, target: Path, start: StartDaemon, layout: Texts
) -> None:
    """SMB and some FUSE file systems refuse chmod."""
    daemon = start(layout, wrapper=refusing(errno.EPERM, *CHMOD)).until_synced()
    assert FILES == consumed(target)
    s3.put("dags/a.py", b"changed")
    s3.delete("dags/pkg/b.py")
    assert "changed" == daemon.sync()["result"]
    daemon.terminate()

    assert "unchanged" == daemon.start().wait_until_synced()["result"]

    assert {"a.py": b"changed", "pkg/empty.py": b""} == consumed(target)
    assert daemon.is_ready()


@pytest.mark.parametrize(
    ("lacks", "code", "calls", "layout"),
    [
        ("flock", errno.EOPNOTSUPP, ("flock",), {}),
        ("flock", errno.ENOLCK, ("flock",), {}),
        ("symlinks", errno.EPERM, SYMLINK, SNAPSHOT),
    ],
)
def test_names_what_the_file_system_lacks(
    start: StartDaemon,
    lacks: str,
    code: int,
    calls: tuple[str, ...],
    layout: Texts,
) -> None:
    wrapper = refusing(code, *calls)

    failed = start(layout, wrapper=wrapper).wait_for_event("cycle_failed")
    checked = start(layout, wrapper=wrapper, arguments=("check",))

    assert 3 == checked.wait_for_exit(30).code
    for said in (failed["error"], checked.log()):
        assert f"its file system does not support {lacks}" in said
    assert "target_failed" == failed["reason"]
    assert "NFS 4" in failed["advice"]


def test_keeps_one_of_two_keys_that_the_volume_does_not_distinguish(
    s3: FakeS3, tmp_path: Path, start: StartDaemon
) -> None:
    s3.put_all({"A.py": b"A = 1\n", "Pkg/c.py": b"C = 1\n"}, "dags/")
    with ignoring_case(tmp_path / "volume") as volume:
        daemon = start(target=volume / "dags").until_synced()
        daemon.sync()
        results = {daemon.sync()["result"] for _ in range(3)}
        kept = published(volume / "dags")
        status = daemon.status()
        ready = daemon.get("/readyz").json()
        daemon.kill()

    assert {"unchanged"} == results
    assert {"a.py": b"A = 1\n", "pkg/c.py": b"C = 1\n"}.items() <= {
        path.lower(): body for path, body in kept.items()
    }.items()
    assert {"dags/a.py": "name_clash"} == status["details"]["keys_skipped"]
    assert (True, None) == (ready["ready"], ready["shortfall"])
