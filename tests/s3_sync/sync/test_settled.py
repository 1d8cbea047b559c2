"""Whole cycles with `S3_SYNC_SETTLE`; unit tests: listing/test_settle.py."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from tests.s3_sync.process import Process
from tests.support.aws.fake_s3 import is_get, is_list
from tests.support.http.loopback import Exchange
from tests.support.s3_sync.snapshots import SwappingS3

OLD = {f"file{number}.py": b"# old %d\n" % number for number in range(6)}
NEW = {f"file{number}.py": b"# new %d\n" % number for number in range(2, 7)}
HOUR = 3_600.0
SETTLE = {"KEY_PATH": "dags", "S3_SYNC_SETTLE": "1h"}
SNAPSHOT = {"S3_SYNC_LAYOUT": "snapshot"}


@pytest.fixture(name="s3")
def quiet_bucket() -> Iterator[SwappingS3]:
    """A bucket that has been quiet for days."""
    with SwappingS3(OLD, age_seconds=100 * HOUR) as s3:
        yield s3


def test_first_start_does_not_wait_for_a_quiet_bucket(process: Process) -> None:
    assert "changed" == process.run(SETTLE | SNAPSHOT).result
    assert OLD == process.shown


@pytest.mark.parametrize("ahead_seconds", [2 * HOUR, -2 * HOUR])
def test_first_start_uses_the_clock_of_the_bucket(
    ahead_seconds: float, s3: SwappingS3, process: Process
) -> None:
    s3.ahead_seconds = ahead_seconds
    s3.swap(OLD, age_seconds=HOUR / 2)
    process.start(SETTLE)

    assert ["settling"] * 3 == [process.cycle().result for _ in range(3)]
    assert {} == process.shown
    assert not process.is_ready
    assert [] == s3.seen(is_get())
    s3.swap(OLD, age_seconds=HOUR + 2)
    process.restart(SETTLE)
    assert "changed" == process.cycle().result
    assert OLD == process.shown


@pytest.mark.parametrize(("seconds", "result"), [(3_599, "settling"), (3_601, "changed")])
def test_first_start_does_not_count_fractions_that_timestamps_lack(
    seconds: int, result: str, s3: SwappingS3, process: Process
) -> None:
    """An object of the last moment of a second looks almost a second older."""
    written = datetime(2026, 11, 25, 12, 0, 0, 999_999, UTC)
    s3.put_all(OLD, "dags/", at=written)
    date = format_datetime(written + timedelta(seconds=seconds - 0.5), usegmt=True)

    def send(exchange: Exchange) -> None:
        answer = exchange.good()
        exchange.send(replace(answer, headers={**answer.headers, "Date": date}))

    s3.inject(send, is_list)

    assert result == process.run(SETTLE | {"S3_SYNC_SETTLE": "3598500ms"}).result


def test_restart_waits_for_an_upload_in_progress(s3: SwappingS3, process: Process) -> None:
    process.run(SETTLE)
    s3.swap(NEW)
    process.restart(SETTLE)

    assert ["settling"] * 2 == [process.cycle().result for _ in range(2)]
    assert OLD == process.shown
    assert process.is_ready
    s3.swap(OLD)
    assert "unchanged" == process.cycle().result
    assert OLD == process.shown


def test_a_deletion_waits_for_the_settle_time(s3: SwappingS3, process: Process) -> None:
    process.run(SETTLE)
    s3.delete("dags/file1.py")

    assert "settling" == process.cycle().result
    assert OLD == process.shown


@pytest.mark.parametrize("layout", [{}, SNAPSHOT], ids=["in-place", "snapshot"])
def test_damage_is_repaired_during_an_upload(
    layout: dict[str, str], s3: SwappingS3, process: Process
) -> None:
    process.run(SETTLE | layout)
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
