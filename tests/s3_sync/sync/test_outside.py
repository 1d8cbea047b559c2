"""Readiness beside another process, and of a folder that cannot be locked or is gone."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.s3_sync.process import Process
from tests.support.aws.fake_s3 import FakeS3, error, is_get, is_list
from tests.support.http.faults import first

LAYOUTS = [{}, {"S3_SYNC_LAYOUT": "snapshot"}]
KEYS = {"KEY_PATH": "dags"}


@pytest.fixture(autouse=True)
def bucket(s3: FakeS3) -> None:
    s3.put_each(("dags/a.py", "dags/b/c.py"), b"v = 1\n")


@pytest.fixture
def other(s3: FakeS3, process: Process) -> Iterator[Process]:
    """A second sidecar on the same folder."""
    other = Process(s3, process.folder)
    yield other
    other.stop()


def files_of(process: Process) -> Path:
    current = process.folder / "current"
    return current.resolve() if current.is_symlink() else process.folder


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_standby_is_ready_if_what_is_published_fits_its_settings(
    process: Process, other: Process, layout: dict[str, str]
) -> None:
    process.run(KEYS | layout)

    assert "waiting" == other.run(KEYS | layout).result
    assert (True, process.revision) == (other.is_ready, other.revision)
    (process.folder / ".s3-sync/published.json").unlink()
    other.cycle()
    assert not other.is_ready


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_standby_shows_what_the_lock_holder_published(
    process: Process, other: Process, layout: dict[str, str]
) -> None:
    process.run(KEYS | layout)
    process.s3.inject(error(403, "AccessDenied"), is_get("dags/p.py"))
    process.s3.put("dags/p.py", b"v = 1\n")
    while process.cycle().result != "partial":
        pass

    other.run(KEYS | layout)

    assert "1 file is missing" in other.readiness.shortfall
    names = ("s3_sync_partial", "s3_sync_managed_files", "sidecar_last_publish_timestamp_seconds")
    assert [1, 2, process.readiness.published_at] == [other.metric(name) for name in names]
    assert {"waiting_for": other.details["waiting_for"], "managed_files": 2} == other.details


def test_a_process_that_becomes_a_standby_shows_none_of_its_own_problems(
    process: Process, other: Process
) -> None:
    """The folder is replaced, and another process locks the new one first."""
    process.s3.inject(error(403, "AccessDenied"), is_get("dags/a.py"))
    process.s3.put("dags/../odd.py", b"")
    assert "partial" == process.run(KEYS).result
    assert "unread" in process.details and "keys_skipped" in process.details
    shutil.rmtree(process.folder)
    process.s3.heal()
    other.run(KEYS)

    assert "waiting" == process.cycle().result

    assert (True, "") == (process.is_ready, process.readiness.shortfall)
    assert [0, 0, 2] == [
        process.metric(f"s3_sync_{name}") for name in ("partial", "held_deletions", "managed_files")
    ]
    assert 0 == process.metric("s3_sync_unread_objects", reason="access_denied_get")
    assert 0 == process.metric("s3_sync_skipped_keys", reason="unsafe_path")
    assert {"waiting_for", "managed_files"} == process.details.keys()


@pytest.mark.parametrize("change", [{"KEY_PATH": "other"}, {"S3_SYNC_LAYOUT": "snapshot"}])
def test_a_standby_reports_that_another_source_or_layout_is_published(
    process: Process, other: Process, change: dict[str, str]
) -> None:
    process.run(KEYS)

    other.run(KEYS | change)

    assert not other.is_ready
    assert "publishes a different source, layout or revision than is set here" in other.problem


@pytest.mark.parametrize("layout", LAYOUTS)
def test_believes_the_record_when_the_lock_cannot_be_opened(
    process: Process, layout: dict[str, str]
) -> None:
    """Simulate a read-only mount, which only root could set up."""
    process.run(KEYS | layout)
    process.stop()
    lock = process.folder / ".s3-sync/lock"
    lock.unlink()
    lock.mkdir()

    process.start(KEYS | layout)
    process.fail()
    assert process.is_ready

    (process.folder / ".s3-sync/published.json").unlink()
    process.fail()
    assert not process.is_ready


@pytest.mark.parametrize("name", ["a.py", "b/c.py"])
def test_notices_at_start_that_the_last_published_file_is_gone(process: Process, name: str) -> None:
    """The list drops its last line if the file is missing: it may never have been written."""
    process.run(KEYS)
    process.stop()
    (process.folder / name).unlink()
    process.s3.inject(error(500, "InternalError"))

    process.start(KEYS)
    process.fail()

    assert "1 published file is missing or altered on disk" == process.problem
    process.s3.heal()
    process.cycle()
    assert (True, "") == (process.is_ready, process.problem)


GONE = {
    "a file": lambda path: path.write_bytes(b""),
    "a dangling link": lambda path: path.symlink_to(path.parent / "nowhere" / "below"),
    "a link to itself": lambda path: path.symlink_to(path),
}


@pytest.mark.parametrize("instead", GONE)
def test_is_not_ready_when_the_folder_cannot_be_created(process: Process, instead: str) -> None:
    process.run(KEYS)
    assert process.is_ready
    shutil.rmtree(process.folder)
    GONE[instead](process.folder)

    process.fail()

    assert not process.is_ready
    assert f"{process.folder} cannot be read" in process.problem
    process.folder.unlink()


def mount_with_fs_group(folder: Path) -> None:
    """The kubelet lets the group read and write every file of a claim."""
    for path in folder.rglob("*"):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o2770 if path.is_dir() else 0o660))


def assert_modes(process: Process, layout: dict[str, str]) -> None:
    modes = {path.stat().st_mode & 0o777 for path in files_of(process).rglob("*.py")}
    assert {0o444 if "S3_SYNC_LAYOUT" in layout else 0o644} == modes


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_new_mount_with_an_fs_group_damages_no_file(
    process: Process, layout: dict[str, str]
) -> None:
    process.run(KEYS | layout)
    process.stop()
    mount_with_fs_group(process.folder)
    process.s3.inject(error(500, "InternalError"))
    process.start(KEYS | layout)
    process.fail()
    assert process.is_ready, process.problem
    process.s3.heal()
    process.s3.forget()

    assert "unchanged" == process.cycle().result
    assert [] == process.s3.seen(lambda request: not is_list(request))
    assert_modes(process, layout)


@pytest.mark.parametrize("changed", ["a.py", "b/c.py"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_modes_of_a_mount_beside_a_running_writer_are_taken_back_at_its_next_start(
    process: Process, layout: dict[str, str], changed: str
) -> None:
    """Another pod mounts the claim; files published afterwards have the modes that were set."""
    process.run(KEYS | layout)
    mount_with_fs_group(process.folder)
    process.s3.put(f"dags/{changed}", b"v = 2\n")
    process.cycle()

    process.restart(KEYS | layout)
    assert "unchanged" == process.cycle().result

    assert_modes(process, layout)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_damage_is_shown_at_once_although_the_cycle_takes_long(
    process: Process, layout: dict[str, str]
) -> None:
    process.run(KEYS | layout)
    seen: list[bool] = []
    process.s3.inject(first(lambda: seen.append(process.is_ready)), is_list)

    for path in process.folder.rglob("*.py"):
        path.unlink()
    process.cycle()

    assert [False, True] == [seen[0], process.is_ready]
