"""The published state, as read from the record of any process."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from s3_sync.tree.published import NAME, Published
from s3_sync.tree.volume import Volume
from sidecar_runtime.fence import CycleAbandoned, Fence

SOURCE = "s3://bucket/dags/"
GOOD: dict[str, object] = {
    "revision": "r1", "aim": "r1", "name": "r1", "missing": 0, "fallback": "",
    "published_at": 1700000000.5, "files": 3, "added": 1, "changed": 0, "deleted": 0,
    "source": SOURCE, "kind": "listing", "layout": "in-place",
}  # fmt: skip

NEEDED = ("source", "kind", "layout", "name", "missing", "published_at")
BAD_VALUES = [
    ("source", "s3://bucket/other/"), ("source", "s3://bucket/dags"), ("revision", None),
    ("revision", 1), ("published_at", "yesterday"), ("kind", "release"), ("missing", "none"),
    ("missing", 1), ("name", ""),
]  # fmt: skip


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The `.s3-sync` of an earlier process."""
    state = tmp_path / "state"
    state.mkdir()
    return state


@pytest.fixture
def good(state: Path) -> Path:
    """The `.s3-sync` of an earlier process, with a valid record."""
    (state / NAME).write_text(json.dumps(GOOD))
    return state


def read(state: Path, layout: str = "in-place") -> Published:
    published = Published(SOURCE, layout)
    fd = os.open(state, os.O_RDONLY)
    try:
        published.read(fd)
    finally:
        os.close(fd)
    return published


def test_ignores_an_unsigned_record_if_signatures_are_required(
    volume: Volume, folder: Path, good: Path
) -> None:
    """Without keys, anyone who can write to the bucket could have published its files."""
    fd = os.open(good, os.O_RDONLY)
    strict = Published(SOURCE, "in-place", is_signed=True)
    strict.read(fd)
    os.close(fd)
    assert not strict.readiness(()).ready

    strict.record(volume, Fence(), {}, name="r7", aim="r7", files=3)
    again = Published(SOURCE, "in-place", is_signed=True)
    fd = os.open(folder / ".s3-sync", os.O_RDONLY)
    again.read(fd)
    os.close(fd)
    assert again.readiness(()).ready
    assert read(folder / ".s3-sync").readiness(()).ready  # without keys, any record counts


def test_is_not_ready_before_the_first_publish() -> None:
    readiness = Published(SOURCE, "in-place").readiness(())

    assert not readiness.ready
    assert "nothing of this source is published yet" == readiness.problem


def test_a_record_survives_a_restart(volume: Volume, folder: Path) -> None:
    before = time.time()
    published = Published(SOURCE, "in-place")
    changes = {"added": 1, "changed": 0, "deleted": 2}
    published.record(volume, Fence(), changes, name="r7", aim="r7", files=3)

    successor = read(folder / ".s3-sync")

    assert "r7" == successor.revision == published.revision
    assert successor.at == published.at
    # The record is rounded.
    assert round(before, 3) <= round(successor.at or 0, 3) <= round(time.time(), 3)
    assert successor.readiness(()).ready
    named = {"revision": "r7", "aim": "r7", "name": "r7", "published_at": successor.at}
    assert GOOD | named | changes == json.loads((folder / ".s3-sync" / NAME).read_bytes())


def test_a_partial_state_has_no_revision_and_reports_its_shortfall(
    volume: Volume, folder: Path
) -> None:
    Published(SOURCE, "in-place").record(
        volume, Fence(), {}, name="partial-1", aim="r7", files=3, missing=2, fallback="r7"
    )

    successor = read(folder / ".s3-sync")

    assert ("", "r7", "partial-1") == (successor.revision, successor.aim, successor.name)
    readiness = successor.readiness(())
    assert (True, "") == (readiness.ready, readiness.revision)
    assert "2 files are missing or out of date" in readiness.shortfall
    assert "the gate refused r7" in readiness.shortfall


def test_a_voided_record_is_not_ready_even_after_a_restart(volume: Volume, folder: Path) -> None:
    published = Published(SOURCE, "in-place")
    published.record(volume, Fence(), {}, name="r7", aim="r7", files=3)

    published.void(volume)

    assert not published.readiness(()).ready
    assert not read(folder / ".s3-sync").readiness(()).ready


@pytest.mark.parametrize(
    ("strict", "counts"), [({}, True), ({"pin": "r7"}, False), ({"is_signed": True}, False)]
)
def test_corrects_the_record_unless_a_pin_or_signatures_are_required(
    volume: Volume, strict: dict[str, Any], counts: bool
) -> None:
    published = Published(SOURCE, "in-place", **strict)
    published.record(volume, Fence(), {}, name="r7", aim="r7", files=3)

    published.correct("r8")

    assert (counts, "r8" if counts else "") == (published.readiness(()).ready, published.revision)


def test_a_revoked_fence_records_nothing(volume: Volume, folder: Path, revoked: Fence) -> None:
    published = Published(SOURCE, "in-place")

    with pytest.raises(CycleAbandoned):
        published.record(volume, revoked, {}, name="r7", aim="r7", files=3)

    assert ("", None) == (published.revision, published.at)
    assert not (folder / ".s3-sync" / NAME).exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"r1"',
        b"\xff\xfe",
        b"[" * 100_000,
        json.dumps(GOOD)[:-5].encode(),
        *(json.dumps(GOOD | {name: value}).encode() for name, value in BAD_VALUES),
        *(json.dumps({k: GOOD[k] for k in GOOD if k != name}).encode() for name in NEEDED),
    ],
    ids=range(23),
)
def test_ignores_a_record_that_is_damaged_or_of_another_source(state: Path, content: bytes) -> None:
    (state / NAME).write_bytes(content)

    published = read(state)

    assert ("", None) == (published.revision, published.at)
    assert not published.readiness(()).ready


def test_accepts_a_record_of_version_0_1(state: Path) -> None:
    """Version 0.1 recorded complete revisions only."""
    names = ("revision", "published_at", "files", "source", "kind", "layout")
    (state / NAME).write_text(json.dumps({name: GOOD[name] for name in names}))

    published = read(state)

    assert published.readiness(()).ready
    assert ("r1", "r1", "r1", 0) == (
        published.revision, published.aim, published.name, published.missing
    )  # fmt: skip


def test_a_state_published_with_other_filters_is_partial(volume: Volume) -> None:
    before = Published(SOURCE, "in-place", filters=(("*.py",), ()))
    before.record(volume, Fence(), {}, name="r7", aim="r7", files=3)
    now = Published(SOURCE, "in-place", filters=((), ()))

    now.read(volume.state)

    found = now.readiness(())
    assert (True, "") == (found.ready, found.revision)
    assert "S3_SYNC_INCLUDE or S3_SYNC_EXCLUDE" in found.shortfall
    now.record(volume, Fence(), {}, name="r7", aim="r7", files=3)
    now.read(volume.state)
    assert ("r7", "") == (now.revision, now.readiness(()).shortfall)


@pytest.mark.parametrize(
    ("written", "layout", "counts"),
    [
        ("in-place", "in-place", True),
        ("snapshot", "snapshot", True),
        ("in-place", "snapshot", False),
        ("snapshot", "in-place", False),
        (7, "snapshot", False),
    ],
)
def test_ignores_a_record_of_another_layout(
    state: Path, written: object, layout: str, counts: bool
) -> None:
    """Its files are not where the consumers of this layout look."""
    (state / NAME).write_text(json.dumps(GOOD | {"layout": written}))

    published = read(state, layout)

    assert counts is published.readiness(()).ready
    assert ("r1" if counts else "") == published.revision


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e400", "1e20", "1" + "0" * 400])
def test_tolerates_an_invalid_publish_time(state: Path, number: str) -> None:
    """Anyone who can write to the volume can write this time, which is shown and computed with."""
    (state / NAME).write_text(json.dumps(GOOD).replace("1700000000.5", number))

    readiness = read(state).readiness(())

    assert readiness.published_at is None or 0 <= readiness.published_at < 1 << 40


@pytest.mark.parametrize("kind", ["missing", "folder", "symlink", "fifo"])
def test_ignores_a_record_that_is_missing_or_not_a_regular_file(state: Path, kind: str) -> None:
    if kind == "folder":
        (state / NAME).mkdir()
    elif kind == "symlink":
        (state / "real").write_text(json.dumps(GOOD))
        (state / NAME).symlink_to("real")
    elif kind == "fifo":
        os.mkfifo(state / NAME)

    assert not read(state).readiness(()).ready


def test_forgets_a_record_that_was_removed(good: Path) -> None:
    published = read(good)
    assert published.readiness(()).ready
    (good / NAME).unlink()
    fd = os.open(good, os.O_RDONLY)

    published.read(fd)

    os.close(fd)
    assert not published.readiness(()).ready


def test_is_not_ready_while_files_are_damaged(good: Path) -> None:
    readiness = read(good).readiness({"a.py", "b.py"})

    assert not readiness.ready
    assert "2 published files are missing or altered on disk" == readiness.problem
    assert ("r1", 1700000000.5) == (readiness.revision, readiness.published_at)


@pytest.mark.parametrize("damaged", [(), {"a.py"}])
def test_is_not_ready_while_files_are_invisible_to_consumers(good: Path, damaged: set[str]) -> None:
    readiness = read(good).readiness(damaged, "the link is gone")

    assert not readiness.ready
    assert ("r1", "the link is gone") == (readiness.revision, readiness.problem)
