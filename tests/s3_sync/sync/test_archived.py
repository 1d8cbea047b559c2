"""Archived objects cannot be downloaded, but their published files stay valid."""

import itertools
from collections.abc import Mapping

import pytest

from tests.s3_sync.process import Process
from tests.support.aws.fake_s3 import FakeS3, is_list
from tests.support.http.faults import first
from tests.support.s3_sync.scripted import published

SNAPSHOT = {"S3_SYNC_LAYOUT": "snapshot"}
LAYOUTS = [{}, {"S3_SYNC_DELETE": "all"}, SNAPSHOT, SNAPSHOT | {"S3_SYNC_GATE": "syntax"}]
BOTH = {"a.py": b"v = 1\n", "b.py": b"v = 1\n"}

each = pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: "-".join(layout.values()))


def begin(s3: FakeS3, process: Process, layout: Mapping[str, str]) -> None:
    """Publish two files, then archive one of the objects."""
    s3.put_all(BOTH)
    process.run(dict(layout))
    archive(s3, "b.py")


def archive(s3: FakeS3, path: str) -> None:
    s3.put(path, BOTH[path], storage_class="GLACIER")


@each
def test_archived_objects_keep_their_files(process: Process, layout: dict[str, str]) -> None:
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
def test_a_removed_file_of_an_archived_object_does_not_fail_the_cycle(
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


@each
def test_a_folder_in_place_of_an_archived_file_does_not_fail_the_cycle(
    process: Process, layout: dict[str, str]
) -> None:
    begin(process.s3, process, layout)
    process.cycle()
    for place in process.folder.rglob("b.py"):
        place.unlink()
        place.mkdir()
        (place / "theirs.txt").touch()
    process.restart(layout)

    assert process.cycle().is_success


def test_downloads_an_object_that_is_no_longer_archived(process: Process) -> None:
    begin(process.s3, process, {})
    process.cycle()
    process.s3.put("b.py", b"v = 2\n")
    process.cycle()

    assert BOTH | {"b.py": b"v = 2\n"} == process.shown


def test_archiving_most_of_a_bucket_is_not_a_mass_deletion(process: Process) -> None:
    *most, one = (f"{number:02}.py" for number in range(30))
    process.s3.put_each([*most, one], b"v = 1\n")
    process.run({})
    process.s3.put_each(most, b"v = 1\n", storage_class="DEEP_ARCHIVE")
    process.s3.put(one, b"v = 2\n")

    assert "changed" == process.cycle().result
    assert 30 == len(process.shown)


def test_keeps_the_file_of_an_archived_object_missing_from_one_listing(process: Process) -> None:
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


def test_archiving_or_deleting_an_object_changes_no_older_snapshot(process: Process) -> None:
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
