"""What may be deleted, what is taken, and what a slip in a setting costs."""

import stat
from pathlib import Path

import pytest

from tests.scenarios.s3_sync.conftest import StartDaemon
from tests.support.daemon import Settings
from tests.support.fake_s3 import FakeS3
from tests.support.scripted import FILES, published


def test_an_empty_listing_deletes_nothing(s3: FakeS3, target: Path, start: StartDaemon) -> None:
    daemon = start().until_synced()
    s3.objects.clear()

    ended = daemon.sync()

    assert ended["event"] == "cycle_failed"
    assert ended["reason"] == "source_empty"
    assert "dags" in ended["error"]
    assert "S3_SYNC_ALLOW_EMPTY" in ended["advice"]
    assert published(target) == FILES
    assert daemon.get("/readyz").status == 200


@pytest.mark.parametrize("slip", [{"KEY_PATH": "dagz"}, {"S3_SYNC_INCLUDE": "*.pyy"}])
def test_a_slip_at_restart_that_leaves_nothing_deletes_nothing(
    start: StartDaemon, slip: Settings
) -> None:
    start().until_synced().terminate()

    daemon = start(slip)

    assert daemon.wait_for_event("cycle_failed")["reason"] == "source_empty"
    assert published(daemon.target) == FILES


def test_an_empty_prefix_at_first_start_is_an_error_too(start: StartDaemon) -> None:
    daemon = start({"KEY_PATH": "nothing/here"})

    assert daemon.wait_for_event("cycle_failed")["reason"] == "source_empty"
    assert daemon.get("/readyz").status == 503


def test_allow_empty_empties(s3: FakeS3, target: Path, start: StartDaemon) -> None:
    daemon = start({"S3_SYNC_ALLOW_EMPTY": "true"}).until_synced()
    (target / "foreign.log").write_text("stays")
    s3.objects.clear()

    ended = daemon.sync()

    assert ended["event"] == "cycle_finished"
    assert ended["files_deleted"] == len(FILES)
    assert published(target) == {"foreign.log": b"stays"}
    assert daemon.get("/readyz").status == 200


def test_include_and_exclude(s3: FakeS3, target: Path, start: StartDaemon) -> None:
    for name in ("x/deep/c.py", "x/notes.md", "tests/test_a.py", "x/data.json"):
        s3.put(f"dags/{name}", name.encode())
    start({"S3_SYNC_INCLUDE": "*.py, *.json", "S3_SYNC_EXCLUDE": "tests/*"}).wait_until_synced()

    assert set(published(target)) == {*FILES, "x/deep/c.py", "x/data.json"}


def test_an_exclude_added_later_removes_what_it_covers(target: Path, start: StartDaemon) -> None:
    start().until_synced().terminate()

    start({"S3_SYNC_EXCLUDE": "pkg/*"}).wait_until_synced()

    assert set(published(target)) == {"a.py"}


@pytest.mark.parametrize(
    ("policy", "left"),
    [("managed", {"foreign.py"}), ("none", {"foreign.py", "pkg/b.py"}), ("all", set())],
)
def test_deletion_policies(s3: FakeS3, start: StartDaemon, policy: str, left: set[str]) -> None:
    daemon = start({"S3_SYNC_DELETE": policy}).until_synced()
    (daemon.target / "foreign.py").write_text("someone else's")
    (daemon.target / "pkg" / "__pycache__").mkdir()
    (daemon.target / "pkg" / "__pycache__" / "b.cpython-311.pyc").write_bytes(b"bytecode")
    s3.delete("dags/pkg/b.py")

    assert daemon.sync()["event"] == "cycle_finished"

    always = {"a.py", "pkg/__pycache__/b.cpython-311.pyc", "pkg/empty.py"}
    assert set(published(daemon.target)) == always | left


@pytest.mark.parametrize("mode", ["0644", "0664", "0600", "0440"])
def test_file_mode(target: Path, start: StartDaemon, mode: str) -> None:
    start({"S3_SYNC_FILE_MODE": mode}).wait_until_synced()

    modes = {stat.S_IMODE((target / name).stat().st_mode) for name in FILES}
    assert modes == {int(mode, 8)}


def test_another_prefix_at_restart_replaces_what_was_published(
    s3: FakeS3, target: Path, start: StartDaemon
) -> None:
    s3.put("other/a.py", b"another a")
    s3.put("other/c.py", b"c")
    start().until_synced().terminate()

    start({"KEY_PATH": "other"}).wait_until_synced()

    assert published(target) == {"a.py": b"another a", "c.py": b"c"}
