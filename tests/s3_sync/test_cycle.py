"""What a cycle does on volumes that others change, mount again, or that lack something."""

import errno
import fcntl
import json
import math
import os
import random
import shutil
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from s3_sync.holds import HARMLESS_FILES
from s3_sync.journal import Journal
from s3_sync.layout.in_place import InPlaceLayout
from s3_sync.s3.client import ATTEMPTS
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.volume.snapshots import Snapshots
from tests import Plant, Texts
from tests.runtime.recording import Log
from tests.s3_sync.process import Process
from tests.support.aws.fake_s3 import FakeS3, error, is_get, is_list
from tests.support.http.faults import answer_with
from tests.support.http.loopback import Answer, Exchange, Match
from tests.support.raising import raised
from tests.support.s3_sync.shelf import RELEASE, Shelf, is_bundle
from tests.support.scripts import counting, runs

KEYS = {"KEY_PATH": "dags"}
SNAPSHOT = KEYS | {"S3_SYNC_LAYOUT": "snapshot"}
DENIED = error(403, "AccessDenied")
NAMES = ("a.py", "pkg/b.py", "c.py")
LAYOUTS = pytest.mark.parametrize(
    "settings", [KEYS, SNAPSHOT], ids=["in-place", "snapshot"]
)


def put(s3: FakeS3, version: int, names: tuple[str, ...] = NAMES) -> None:
    s3.put_each((f"dags/{name}" for name in names), f"v = {version:04}\n".encode())


def synced(s3: FakeS3, process: Process, settings: Texts) -> Path:
    """Sync once; return the folder that consumers read."""
    put(s3, 1)
    process.run(settings)
    return process.folder / "current" if settings is not KEYS else process.folder


def snapshots(process: Process) -> list[str]:
    return sorted(
        name
        for name in os.listdir(process.folder / ".s3-sync/snapshots")
        if "." not in name
    )


def retained(s3: FakeS3, process: Process, count: int) -> Texts:
    """Publish a state, and so many others before it; return the settings."""
    settings = SNAPSHOT | {
        "S3_SYNC_RETAIN_COUNT": str(count),
        "S3_SYNC_RETAIN_FOR": "0",
    }
    process.start(settings)
    for version in range(count + 1):
        put(s3, version)
        process.cycle()
    process.stop()
    assert count + 1 == len(snapshots(process))
    return settings


def test_a_gate_that_names_one_file_a_run_is_asked_about_each_only_once(
    s3: FakeS3, process: Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(s3, 1)
    s3.put_each((f"dags/bad{number:02}.py" for number in range(50)), b"bad\n")
    gate = tmp_path / "gate"
    body = f"""[ $(wc -l < {gate}.runs) = 20 ] && exit 75  # no verdict
        grep -l bad *.py | head -1 | sed 's/$/:1: bad/'; ! grep -q bad *.py"""
    process.start(
        SNAPSHOT
        | {
            "S3_SYNC_GATE": "command",
            "S3_SYNC_GATE_COMMAND": str(counting(gate, body)),
        }
    )
    raised(SidecarError, process.cycle)
    # Long afterwards, each verdict is due again.
    monkeypatch.setattr(process._sidecar.gate, "_clock", lambda: math.inf)

    outcome = process.cycle()

    assert 50 == outcome.counts["files_missing"]
    assert "bad00.py" in str(outcome.why)
    assert runs(gate) < 60


# --- what is retained waits


def calls_before(
    s3: FakeS3,
    process: Process,
    monkeypatch: pytest.MonkeyPatch,
    settings: Texts,
    match: Match,
) -> int:
    """Run the first cycle; return how often it asks the volume before a request."""
    found: list[int] = []
    calls = Mock(wraps=os.stat)

    def answer(exchange: Exchange) -> None:
        found.append(calls.call_count)
        exchange.send(exchange.good())

    s3.inject(answer, match)
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", calls)
        process.run(settings)
    s3.heal()
    return found[0]


@pytest.mark.parametrize("is_damaged", [False, True])
def test_what_is_retained_stands_before_no_answer(
    s3: FakeS3, process: Process, monkeypatch: pytest.MonkeyPatch, is_damaged: bool
) -> None:
    """Neither at a start, nor before damage is repaired: with many as with few."""
    counts: list[int] = []
    for count in (2, 12):
        settings = retained(s3, process, count)
        if is_damaged:
            for place in (process.folder / ".s3-sync/snapshots").rglob("a.py"):
                place.unlink()
        counts.append(
            calls_before(
                s3, process, monkeypatch, settings, is_get() if is_damaged else is_list
            )
        )
        assert process.is_ready
        assert (1 if is_damaged else count + 1) == len(snapshots(process))
        process.stop()
        shutil.rmtree(process.folder)

    # less than one for each of the ten; the request is seen a moment after it was sent
    assert counts[1] - counts[0] < 10


def test_a_change_of_which_too_little_can_be_read_is_taken_back(
    s3: FakeS3, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What failed is told, although the volume does not take the record either."""
    shown = synced(s3, process, KEYS)
    before = process.revision
    (shown / "a.py").unlink()
    put(s3, 2)
    s3.inject(DENIED, is_get())
    monkeypatch.setattr(
        "s3_sync.published.write_file",
        Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")),
    )

    assert "access_denied_get" == raised(SidecarError, process.cycle).reason
    assert before == process.revision


def test_a_release_that_the_volume_cannot_have_is_no_fallback_and_not_fetched(
    s3: FakeS3, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s3_sync.volume.is_folding", lambda folder: True)
    shelf = Shelf(s3)
    clashing = shelf.publish({"a.py": b"", "A.py": b""}).revision
    shelf.publish({"a.py": b"(\n"})
    process.start(KEYS | RELEASE | {"S3_SYNC_GATE": "syntax"})
    asked = process._sidecar.asked
    assert asked
    asked.ask(clashing, is_known=True)

    process.cycle()

    assert not process.is_ready
    assert "does not distinguish" in str(asked.ask(clashing, is_known=True))


def test_a_server_that_ignores_ranges_is_named_and_no_bundle_is_called_corrupt(
    s3: FakeS3, process: Process
) -> None:
    Shelf(s3).publish({"a.py": b"1"})
    s3.inject(answer_with(Answer(200, {}, b"the whole bundle")), is_bundle)
    process.start(KEYS | RELEASE)

    failed = raised(SidecarError, process.cycle)

    assert "answer_foreign" == failed.reason
    assert "the whole object" in failed.message


def test_a_part_that_a_server_sends_with_200_is_taken(
    s3: FakeS3, process: Process
) -> None:
    """As `rclone serve s3` does."""
    Shelf(s3).publish({"a.py": b"1"})
    s3.inject(lambda one: one.send(replace(one.good(), status=200)), is_bundle)
    process.start(KEYS | RELEASE)

    assert "changed" == process.cycle().result


# --- other people's volumes


def test_a_volume_that_reports_its_quota_as_a_list_is_closed_is_opened_again(
    s3: FakeS3, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As NFS does."""
    synced(s3, process, SNAPSHOT)
    shutil.rmtree(process.folder / ".s3-sync")
    with monkeypatch.context() as patch:
        patch.setattr(
            Journal,
            "close",
            Mock(side_effect=OSError(errno.EDQUOT, "Disk quota exceeded")),
        )
        raised(SidecarError, process.cycle)

    assert "changed" == process.cycle().result


@LAYOUTS
def test_a_remount_that_numbers_files_anew_damages_nothing(
    s3: FakeS3, process: Process, settings: Texts
) -> None:
    shown = synced(s3, process, settings)
    put(s3, 2, NAMES[:1])
    process.cycle()
    process.stop()
    before = snapshots(process) if settings is SNAPSHOT else []
    for place in [path for path in process.folder.rglob("*.py") if path.is_file()]:
        shutil.copy2(place, copy := place.with_suffix(".new"))
        copy.rename(place)
    s3.inject(DENIED, is_list)

    for _ in range(2):  # a second start finds the new numbers in the list
        process.start(settings)
        process.attempt()
        assert process.is_ready, process.problem
        process.stop()

    s3.heal()
    process.run(settings)
    assert 1 == len([one for one in s3.seen(is_get()) if "pkg/b.py" in one.path])
    assert b"v = 0002\n" == (shown / "a.py").read_bytes()
    assert before == (snapshots(process) if before else [])


@LAYOUTS
def test_files_of_somebody_else_and_folders_that_cannot_be_flushed_are_synced(
    s3: FakeS3,
    process: Process,
    monkeypatch: pytest.MonkeyPatch,
    settings: Texts,
) -> None:
    """As on SMB with `uid=`, on bindfs, and some FUSE file systems."""
    utime = os.utime
    fsync = os.fsync

    def refuse(path: Any, times: Any = None, **more: Any) -> None:
        if times is not None or "ns" in more:
            raise PermissionError(errno.EPERM, "not the owner")
        utime(path)

    def flush(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(fd)

    monkeypatch.setattr(os, "utime", refuse)
    monkeypatch.setattr(os, "fsync", flush)
    put(s3, 1)
    process.run({**settings, "S3_SYNC_FSYNC": "true"})
    assert process.is_ready
    shown = process.folder / ("current" if settings is SNAPSHOT else "")
    before = (shown / "a.py").stat().st_mtime
    put(s3, 2)

    assert "changed" == process.cycle().result
    assert "unchanged" == process.cycle().result
    assert int(before) < int((shown / "a.py").stat().st_mtime)


@pytest.mark.parametrize(
    ("failing", "version", "settings"),
    [
        # while a state waits
        ("s3_sync.volume.StagingFolder.open", 2, {"S3_SYNC_SETTLE": "1h"}),
        # though nothing is left to do
        ("s3_sync.tree.sync_folder", 1, {"S3_SYNC_FSYNC": "true"}),
    ],
)
def test_a_repair_that_the_volume_does_not_take_is_told_all_the_same(
    s3: FakeS3,
    process: Process,
    monkeypatch: pytest.MonkeyPatch,
    failing: str,
    version: int,
    settings: Texts,
) -> None:
    shown = synced(s3, process, KEYS)
    process.stop()
    (shown / NAMES[1]).unlink()
    put(s3, version, NAMES[:1])
    process.start(KEYS | settings)
    monkeypatch.setattr(failing, Mock(side_effect=OSError(errno.EIO, "it fails")))

    assert "it fails" in raised(SidecarError, process.cycle).message


def test_the_file_that_was_put_last_is_repaired_after_a_restart_while_a_state_waits(
    s3: FakeS3, process: Process
) -> None:
    shown = synced(s3, process, KEYS)
    process.stop()
    last = (shown / ".s3-sync/managed").read_text().splitlines()[-1]
    (shown / json.loads(last)[0]).unlink()
    put(s3, 1, ("new.py",))

    outcome = process.run(KEYS | {"S3_SYNC_SETTLE": "1h"})

    assert "source_unsettled" == outcome.reason
    assert 1 == outcome.counts["files_healed"]
    assert process.is_ready


def test_the_record_of_a_partial_state_counts_what_is_missing_and_keeps_its_time(
    s3: FakeS3, process: Process
) -> None:
    shown = synced(s3, process, KEYS)
    at = process.readiness.published_at
    put(s3, 2, NAMES[1:])
    for name in NAMES[1:]:
        s3.inject(DENIED, is_get(f"dags/{name}"))

    process.cycle()

    assert 2 == json.loads((shown / ".s3-sync/published.json").read_text())["missing"]
    assert at == process.readiness.published_at


@pytest.mark.parametrize(
    "failing", ["s3_sync.tree.Tree.delete", "s3_sync.published.write_file"]
)
def test_a_change_that_keeps_failing_is_not_published_again_and_again(
    s3: FakeS3, process: Process, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    """The volume refuses to delete, or the record of what it has."""
    synced(s3, process, KEYS)
    s3.delete("dags/a.py")
    put(s3, 1, ("new.py",))
    s3.inject(DENIED, is_get("dags/new.py"))
    monkeypatch.setattr(failing, Mock(side_effect=OSError(28, "ENOSPC")))
    process.attempt()
    at = process.readiness.published_at

    process.attempt()

    assert at == process.readiness.published_at


def test_what_an_earlier_version_left_is_removed(s3: FakeS3, process: Process) -> None:
    (process.folder / ".s3-sync/tree/pkg").mkdir(parents=True)

    synced(s3, process, KEYS)

    assert not (process.folder / ".s3-sync/tree").exists()


# --- what belongs to others stays


def test_a_snapshot_that_returns_keeps_what_others_wrote_into_it(
    s3: FakeS3, process: Process
) -> None:
    shown = synced(s3, process, SNAPSHOT)
    (shown / "task.log").touch()
    for version in (2, 1):
        put(s3, version)
        process.cycle()

    assert (shown / "task.log").exists()


@pytest.mark.parametrize(
    ("name", "instead"),
    [("c.py", "d.py"), ("c.py", "c.py/d.py"), ("pkg/b.py", "pkg")],
)
def test_a_file_that_somebody_put_in_place_of_a_deleted_one_stays(
    s3: FakeS3, process: Process, log: Log, name: str, instead: str
) -> None:
    """Also where the source has a folder there now, or a file instead of its folder."""
    shown = synced(s3, process, KEYS)
    (shown / "new").write_text("of another program")
    (shown / "new").rename(shown / name)
    s3.delete(f"dags/{name}")
    put(s3, 1, (instead,))

    for _ in range(2):
        process.cycle()

    assert "of another program" == (shown / name).read_text()
    assert [name] == [event["name"] for event in log.events("leftover_kept")]
    assert process.is_ready


def test_a_file_in_place_of_the_link_is_never_replaced(
    s3: FakeS3, process: Process
) -> None:
    shown = synced(s3, process, SNAPSHOT)
    shown.unlink()
    shown.write_text("of another program")

    assert "link_blocked" == raised(SidecarError, process.cycle).reason
    assert "of another program" == shown.read_text()
    assert not process.is_ready


def test_a_snapshot_in_use_stays_after_a_change_of_the_layout(
    s3: FakeS3, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = synced(s3, process, SNAPSHOT).resolve()
    process.stop()
    task = os.open(used, os.O_RDONLY)
    fcntl.flock(task, fcntl.LOCK_SH)

    process.run(KEYS)
    assert (used / "a.py").exists()
    os.close(task)
    with monkeypatch.context() as patch:  # one that cannot be removed fails no cycle
        patch.setattr(Snapshots, "remove", Mock(side_effect=PermissionError))
        process.cycle()
    process.cycle()

    assert not used.exists()
    assert process.is_ready


# --- names, records, lists


def test_the_folder_of_a_listing_holds_that_listing(
    s3: FakeS3, process: Process
) -> None:
    """What is kept without a key is part of another name."""
    settings = SNAPSHOT | {"S3_SYNC_DELETE": "none", "S3_SYNC_RETAIN_FOR": "0"}
    put(s3, 1, NAMES[:1])
    process.run(settings)
    [first] = snapshots(process)
    put(s3, 1)
    process.cycle()
    s3.delete("dags/c.py")
    s3.delete("dags/pkg/b.py")

    process.cycle()

    assert ["a.py"] == os.listdir(process.folder / ".s3-sync/snapshots" / first)
    assert first == process.revision
    assert {"a.py", "pkg", "c.py"} == set(os.listdir(process.folder / "current"))


def of_a_snapshot_that_is_gone(record: Path) -> None:
    """The link decides then."""
    record.write_text(record.read_text().replace('"name": "', '"name": "0'))


@pytest.mark.parametrize(
    ("settings", "damage"),
    [
        (KEYS, Path.unlink),
        (KEYS, lambda path: path.write_text("{")),
        (SNAPSHOT, of_a_snapshot_that_is_gone),
    ],
)
def test_a_lost_record_loosens_no_brake(
    s3: FakeS3,
    process: Process,
    settings: Texts,
    damage: Plant,
) -> None:
    names = tuple(f"{number:02}.py" for number in range(HARMLESS_FILES + 2))
    put(s3, 1, names)
    process.run(settings)
    process.stop()
    damage(process.folder / ".s3-sync/published.json")
    for name in names[1:]:
        s3.delete(f"dags/{name}")
    for place in process.folder.rglob(names[0]):
        place.write_text("")  # not removed: it may be the last one of the list

    outcome = process.run(settings)

    assert "deletion_held" == outcome.reason
    assert 1 == outcome.counts["files_healed"]  # a repair is told all the same


@LAYOUTS
def test_a_lost_record_loses_no_file_that_exists_nowhere_else(
    s3: FakeS3, process: Process, settings: Texts
) -> None:
    """One is archived, and one is denied in its new version."""
    shown = synced(s3, process, settings)
    process.stop()
    (process.folder / ".s3-sync/published.json").unlink()
    s3.put("dags/a.py", b"", storage_class="GLACIER")
    put(s3, 2, ("c.py",))
    s3.inject(DENIED, is_get("dags/c.py"))

    process.start(settings)
    for _ in range(2):
        process.cycle()

    assert all((shown / name).exists() for name in NAMES)
    assert process.is_ready


@LAYOUTS
def test_settings_that_return_do_not_take_half_a_change_of_others_for_their_own(
    s3: FakeS3, process: Process, monkeypatch: pytest.MonkeyPatch, settings: Texts
) -> None:
    """In place, it is a mix, in which nothing is missed; a snapshot is as it was."""
    shown = synced(s3, process, settings)
    before = process.revision
    process.stop()
    s3.put_each((f"prd/{name}" for name in ("a.py", *NUMBERED)), b"other")
    process.start({"KEY_PATH": "prd"})
    with monkeypatch.context() as patch:
        patch.setattr(
            InPlaceLayout, "publish", Mock(side_effect=OSError(errno.EIO, ""))
        )
        raised(SidecarError, process.cycle)
    process.stop()
    s3.inject(DENIED)
    process.start(settings)

    process.attempt()

    assert process.is_ready
    assert ("" if settings is KEYS else before) == process.revision
    assert (settings is KEYS) == ("is in progress" in process.readiness.shortfall)
    assert (settings is KEYS) == (b"other" == (shown / "a.py").read_bytes())
    s3.heal()
    assert not process.cycle().why


def test_repairs_alone_do_not_let_the_list_grow(
    s3: FakeS3, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s3_sync.journal.SLACK_LINES", 5)
    synced(s3, process, KEYS)
    for _ in range(20):
        (process.folder / "a.py").unlink()
        process.cycle()

    assert (
        len((process.folder / ".s3-sync/managed").read_bytes().splitlines())
        <= 2 * len(NAMES) + 5 + 2
    )


def test_a_path_of_4_000_control_characters_survives_a_restart(
    s3: FakeS3, process: Process
) -> None:
    Shelf(s3).publish({"/".join(["\x7f" * 250] * 15): b"x"})
    process.run(KEYS | RELEASE)
    process.stop()
    s3.inject(DENIED)

    process.start(KEYS | RELEASE)
    process.attempt()

    assert process.is_ready, process.problem


# --- objects that fail


NUMBERED = [f"{number:03}.py" for number in range(290)]


def fail_for_ever(s3: FakeS3, names: list[str], patch: pytest.MonkeyPatch) -> None:
    """Let these objects answer 500, and read all in the order of their names."""
    patch.setattr("s3_sync.s3.client.RETRY_SECONDS", 0)
    patch.setattr(random, "shuffle", lambda names: None)
    s3.inject(
        error(500, "InternalError"), lambda one: one.path.rpartition("/")[2] in names
    )


@pytest.mark.parametrize(
    "failing",
    [NUMBERED[:90], NUMBERED[100:190], NUMBERED[-90:], NUMBERED[::2]],
    ids=["the first ones", "in the middle", "the last ones", "one in two"],
)
def test_many_objects_that_fail_for_ever_delay_a_new_pod_by_two_cycles_at_most(
    s3: FakeS3, process: Process, monkeypatch: pytest.MonkeyPatch, failing: list[str]
) -> None:
    put(s3, 1, tuple(NUMBERED))
    fail_for_ever(s3, failing, monkeypatch)
    process.start(SNAPSHOT)
    for _ in range(3):
        process.attempt()

    assert process.is_ready, process.problem
    assert f"{len(failing)} files are missing" in process.readiness.shortfall


@pytest.mark.parametrize("count", [90, 145, 190])
def test_objects_that_fail_for_ever_delay_another_one_by_one_cycle_after_a_restart(
    s3: FakeS3, process: Process, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Nothing but what fails, and the new one, is left to read."""
    put(s3, 1, tuple(NUMBERED))
    process.run(KEYS)
    put(s3, 2, tuple(NUMBERED[:count]))
    fail_for_ever(s3, NUMBERED[:count], monkeypatch)
    process.stop()
    put(s3, 1, (f"{count - 1:03}-new.py",))
    process.start(KEYS)
    for _ in range(2):
        process.attempt()

    assert (process.folder / f"{count - 1:03}-new.py").exists()
    assert process.is_ready, process.problem


def test_an_endpoint_that_fails_for_everything_ends_the_cycle(
    s3: FakeS3, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after some objects were read; few tries tell where none was."""
    synced(s3, process, KEYS)
    put(s3, 2, tuple(NUMBERED[:8]))
    fail_for_ever(s3, NUMBERED, monkeypatch)
    assert "server_error" == raised(SidecarError, process.cycle).reason
    assert "partial" == process.cycle().result

    put(s3, 3, ("000-a.py", *NUMBERED[8:108]))
    asked = len(s3.seen(is_get()))
    assert "server_error" == raised(SidecarError, process.cycle).reason
    assert len(s3.seen(is_get())) - asked < ATTEMPTS * 120
