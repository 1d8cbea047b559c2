"""What was archived can be read no more; a file of it that is on disk stays good."""

import itertools
from collections.abc import Mapping

import pytest

from tests.runtime.recording import Log
from tests.s3_sync.process import Process
from tests.support.fake_s3 import FakeS3, is_list
from tests.support.faults import first
from tests.support.scripted import published

SNAPSHOT = {"S3_SYNC_LAYOUT": "snapshot"}
GATE = {"S3_SYNC_GATE": "syntax"}
LAYOUTS = [{}, {"S3_SYNC_DELETE": "all"}, SNAPSHOT, GATE, SNAPSHOT | GATE]
BOTH = {"a.py": b"v = 1\n", "b.py": b"v = 1\n"}

each = pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: "-".join(layout.values()))


def begin(s3: FakeS3, process: Process, layout: Mapping[str, str]) -> None:
    """Publish two files, and archive one of the objects."""
    s3.put_all(BOTH)
    process.run(dict(layout))
    archive(s3, "b.py")


def archive(s3: FakeS3, path: str) -> None:
    s3.put(path, BOTH[path], storage_class="GLACIER")


@each
def test_its_file_stays_as_long_as_its_key(process: Process, layout: dict[str, str]) -> None:
    begin(process.s3, process, layout)
    process.s3.put("c.py", b"v = 1\n")
    assert "changed" == process.cycle().result
    process.restart(layout)
    assert process.cycle().is_success

    assert BOTH | {"c.py": b"v = 1\n"} == process.shown
    assert {"b.py": "archived"} == process.details["keys_skipped"]
    assert process.revision
    process.s3.delete("b.py")
    process.cycle()
    assert {"a.py": b"v = 1\n", "c.py": b"v = 1\n"} == process.shown


@each
def test_what_others_did_to_its_file_cannot_be_undone_and_is_no_failure(
    process: Process, layout: dict[str, str]
) -> None:
    begin(process.s3, process, layout)
    process.cycle()
    for place in process.folder.rglob("b.py"):
        place.unlink()
    process.restart(layout)

    assert process.cycle().is_success
    assert process.is_ready, process.problem
    assert {"a.py": b"v = 1\n"} == process.shown


def test_what_is_back_is_read_again(process: Process) -> None:
    begin(process.s3, process, {})
    process.cycle()
    process.s3.put("b.py", b"v = 2\n")
    process.cycle()

    assert BOTH | {"b.py": b"v = 2\n"} == process.shown


def test_a_bucket_of_which_most_is_archived_is_no_mass_deletion(process: Process) -> None:
    *most, one = (f"{number:02}.py" for number in range(30))
    process.s3.put_each([*most, one], b"v = 1\n")
    process.run({})
    process.s3.put_each(most, b"v = 1\n", storage_class="DEEP_ARCHIVE")
    process.s3.put(one, b"v = 2\n")

    assert "changed" == process.cycle().result
    assert 30 == len(process.shown)


def test_a_listing_that_lost_it_once_deletes_nothing(process: Process) -> None:
    begin(process.s3, process, {})
    process.cycle()
    process.s3.delete("b.py")
    listings = itertools.count(1)

    def put_back() -> None:
        if next(listings) == 2:
            archive(process.s3, "b.py")

    process.s3.inject(first(put_back), is_list)
    process.cycle()

    assert BOTH == process.shown


def test_a_dry_run_does_not_plan_its_deletion(process: Process, log: Log) -> None:
    begin(process.s3, process, {})
    process.restart({"S3_SYNC_DRY_RUN": "true"})
    process.cycle()

    assert [[]] == [event["delete"] for event in log.events("plan_made")]


def test_no_snapshot_changes_because_an_object_is_archived_or_gone(process: Process) -> None:
    process.s3.put("a.py", b"v = 1\n")
    process.run(SNAPSHOT)
    alone = (process.folder / "current").resolve()
    process.s3.put("b.py", b"v = 1\n")
    process.cycle()
    archive(process.s3, "b.py")
    process.cycle()
    archived = (process.folder / "current").resolve()
    assert (BOTH, {"a.py": b"v = 1\n"}) == (process.shown, published(alone))
    process.s3.delete("b.py")
    process.cycle()

    assert ({"a.py": b"v = 1\n"}, BOTH) == (process.shown, published(archived))
