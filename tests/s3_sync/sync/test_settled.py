"""Whole cycles with `S3_SYNC_SETTLE`; unit tests: listing/test_settle.py."""

from collections.abc import Iterator

import pytest

from tests.s3_sync.process import Process
from tests.support.s3_sync.snapshots import SwappingS3

OLD = {f"file{number}.py": b"# old %d\n" % number for number in range(6)}
NEW = {f"file{number}.py": b"# new %d\n" % number for number in range(2, 7)}
HOUR = 3_600.0
DAGS = {"KEY_PATH": "dags"}
SETTLE = {**DAGS, "S3_SYNC_SETTLE": "1h"}
SNAPSHOT = {"S3_SYNC_LAYOUT": "snapshot"}


@pytest.fixture(name="s3")
def quiet_bucket() -> Iterator[SwappingS3]:
    """A bucket that has been quiet for days."""
    with SwappingS3(OLD, age_seconds=100 * HOUR) as s3:
        yield s3


def test_the_first_publish_waits_as_well(process: Process) -> None:
    process.run(SETTLE)

    assert "settling" == process.cycle().result
    assert {} == process.shown
    assert not process.is_ready


def test_restart_waits_for_an_upload_in_progress(s3: SwappingS3, process: Process) -> None:
    process.run(DAGS)
    s3.swap(NEW)
    process.restart(SETTLE)

    assert ["settling"] * 2 == [process.cycle().result for _ in range(2)]
    assert OLD == process.shown
    assert process.is_ready
    s3.swap(OLD)
    assert "unchanged" == process.cycle().result
    assert OLD == process.shown


def test_a_deletion_waits_for_the_settle_time(s3: SwappingS3, process: Process) -> None:
    process.run(DAGS)
    process.restart(SETTLE)
    s3.delete("dags/file1.py")

    assert "settling" == process.cycle().result
    assert OLD == process.shown


@pytest.mark.parametrize("layout", [{}, SNAPSHOT], ids=["in-place", "snapshot"])
def test_damage_is_repaired_during_an_upload(
    layout: dict[str, str], s3: SwappingS3, process: Process
) -> None:
    process.run(DAGS | layout)
    process.restart(SETTLE | layout)
    assert "unchanged" == process.cycle().result
    s3.put("dags/file5.py", b"# new 5\n")
    assert "settling" == process.cycle().result
    folder = process.folder / ("current" if layout is SNAPSHOT else "")
    (folder / "file3.py").unlink()
    (folder / "file4.py").chmod(0o644)
    (folder / "file4.py").write_bytes(b"edited")

    for _ in range(2):
        assert "settling" == process.cycle().result
    assert OLD == process.shown
    assert process.is_ready
