"""Reports for people: sizes, times and tables."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from s3_sync.publisher.catalog import CatalogEntry
from s3_sync.publisher.report import size_text, table
from s3_sync.publisher.table import releases_report
from s3_sync.release.facts import Checked, Origin, time_text
from s3_sync.release.manifest import Head
from tests.support.s3_sync.releases import make_release

AT = datetime(2026, 11, 20, 15, tzinfo=UTC)


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1 << 20, "1.0 MiB"),
        (3 << 29, "1536.0 MiB"),
    ],
)
def test_formats_sizes_in_binary_units(size_bytes: int, text: str) -> None:
    assert text == size_text(size_bytes)


def test_formats_times_in_utc() -> None:
    assert "2026-11-20T15:00:00Z" == time_text(AT.astimezone(timezone(timedelta(hours=9))))


def test_columns_are_aligned() -> None:
    assert ["a   b", "cc  d", "e"] == table([("a", "b"), ("cc", "d"), ("e", "")])


def test_the_table_of_releases_shows_states_origins_and_checks() -> None:
    pointer = make_release({"a": b""}, history=("b" * 64, "c" * 64)).pointer
    origin = Origin("ada", "1" * 40 + "-dirty", "main", "Ada", "Subject " * 20 + "\nmore")
    checked = Checked("3.3.2", AT, 1_042, ("sales",))
    summary = Head(pointer.revision, AT, origin, "0" * 64, 9, 212, 1_200_000, checked)
    entries = [
        CatalogEntry(pointer.revision, AT, summary),
        CatalogEntry("b" * 64, AT, summary),
        CatalogEntry("c" * 64, AT, None),
    ]

    report = releases_report("s3://b/p/", entries, 3, pointer, {"b" * 64})

    current, previous, damaged, more = report.lines[1:]
    assert [pointer.revision[:12], "2026-11-20T15:00:00Z", "ada", "111111111111-dirty", "212"] == (
        current.split()[:5]
    )
    assert "current" in current and "previous, pinned" in previous and "damaged" in damaged
    assert max(map(len, report.lines)) < 160
    assert more.startswith("and 3 older releases")
    assert "1042 (3.3.2)" in current
    [airflow, _, _] = [facts.get("airflow") for facts in report.facts["releases"]]
    assert ("3.3.2", 1_042, ["sales"]) == tuple(
        airflow[name] for name in ("version", "dags", "dag_ids")
    )
    states = [facts["state"] for facts in report.facts["releases"]]
    assert [["current"], ["previous", "pinned"], []] == states


def test_reports_that_there_are_no_releases_yet() -> None:
    report = releases_report("s3://b/p/", [], 0, None, set())

    assert ["s3://b/p/ has no releases yet."] == report.lines
    assert report.facts["current"] is None
