"""Deletion policies, filters, and mistyped settings."""

import pytest

from tests.s3_sync.process import Process
from tests.support.aws.fake_s3 import FakeS3
from tests.support.s3_sync.scripted import FILES, fill

DAGS = {"KEY_PATH": "dags"}


@pytest.fixture
def s3(s3: FakeS3) -> FakeS3:
    fill(s3)
    return s3


def test_an_empty_listing_deletes_nothing(s3: FakeS3, process: Process) -> None:
    process.run(DAGS)
    s3.objects.clear()

    failed = process.fail()

    assert "source_empty" == failed.reason
    assert "dags" in failed.message
    assert "S3_SYNC_ALLOW_EMPTY" in failed.advice
    assert FILES == process.shown
    assert process.is_ready


def test_an_empty_listing_with_releases_suggests_their_setting(
    s3: FakeS3, process: Process
) -> None:
    process.run(DAGS)
    s3.objects.clear()
    s3.put_each(("dags/current.json", f"dags/bundles/{'a' * 64}.zip"), b"x")

    failed = process.fail()

    assert "source_empty" == failed.reason
    assert "S3_SYNC_SOURCE=release" in failed.advice
    assert FILES == process.shown


@pytest.mark.parametrize("slip", [{"KEY_PATH": "dagz"}, {"S3_SYNC_INCLUDE": "*.pyy"}])
def test_a_mistyped_setting_that_matches_nothing_deletes_nothing(
    process: Process, slip: dict[str, str]
) -> None:
    process.run(DAGS)
    process.restart(DAGS | slip)

    assert "source_empty" == process.fail().reason
    assert FILES == process.shown


def test_allow_empty_deletes_all_managed_files(s3: FakeS3, process: Process) -> None:
    process.run(DAGS | {"S3_SYNC_ALLOW_EMPTY": "true"})
    (process.folder / "foreign.log").write_text("stays")
    s3.objects.clear()

    assert len(FILES) == process.cycle().counts["files_deleted"]
    assert {"foreign.log": b"stays"} == process.shown
    assert process.is_ready


def test_include_and_exclude_select_files(s3: FakeS3, process: Process) -> None:
    for name in ("x/deep/c.py", "x/notes.md", "tests/test_a.py", "x/data.json"):
        s3.put(f"dags/{name}", name.encode())
    process.run(DAGS | {"S3_SYNC_INCLUDE": "*.py, *.json", "S3_SYNC_EXCLUDE": "tests/*"})

    assert {*FILES, "x/deep/c.py", "x/data.json"} == process.shown.keys()


def test_an_exclude_added_later_removes_excluded_files(process: Process) -> None:
    process.run(DAGS)
    process.restart(DAGS | {"S3_SYNC_EXCLUDE": "pkg/*"})
    process.cycle()

    assert {"a.py"} == process.shown.keys()


@pytest.mark.parametrize(
    ("policy", "left"),
    [("managed", {"foreign.py"}), ("none", {"foreign.py", "pkg/b.py"}), ("all", set())],
)
def test_each_deletion_policy_deletes_its_files(
    s3: FakeS3, process: Process, policy: str, left: set[str]
) -> None:
    process.run(DAGS | {"S3_SYNC_DELETE": policy})
    (process.folder / "foreign.py").write_text("someone else's")
    (process.folder / "pkg/__pycache__").mkdir()
    (process.folder / "pkg/__pycache__/b.cpython-311.pyc").write_bytes(b"bytecode")
    s3.delete("dags/pkg/b.py")
    process.cycle()

    always = {"a.py", "pkg/__pycache__/b.cpython-311.pyc", "pkg/empty.py"}
    assert always | left == process.shown.keys()
