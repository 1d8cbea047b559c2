"""`published.json`: what any process reads in the record of another."""

import json
import os
from pathlib import Path

import pytest

from s3_sync.folder.target import NAME, Published, Record
from s3_sync.folder.volume import Volume
from s3_sync.settings import load_settings
from sidecar_runtime.fence import Fence
from sidecar_runtime.health import Readiness

SOURCE = "s3://bucket/dags/"
R7 = Published("r7", "r7", "r7", 0, "", 1700000000.5, 3)
GOOD: dict[str, object] = {
    "revision": "r1", "aim": "r1", "name": "r1", "missing": 0, "fallback": "",
    "published_at": 1700000000.5, "files": 3, "damaged": 0, "added": 1, "changed": 0, "deleted": 0,
    "source": SOURCE, "kind": "listing", "layout": "in-place",
}  # fmt: skip

NEEDED = ("source", "kind", "layout", "name", "revision", "published_at")
BAD_VALUES = [
    ("source", "s3://bucket/other/"), ("source", "s3://bucket/dags"), ("revision", None),
    ("revision", 1), ("published_at", "yesterday"), ("kind", "release"), ("missing", 1),
    ("name", ""), ("layout", "snapshot"), ("layout", 7),
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


def record(**environ: str) -> Record:
    """Return the record of a process with these settings."""
    given = {"AWS_BUCKET": "bucket", "KEY_PATH": "dags", "DEST_PATH": "/nowhere", **environ}
    return Record(load_settings(given)[0])


def opened(state: Path, **environ: str) -> Record:
    """Return the record that a process with these settings reads."""
    fd = os.open(state, os.O_RDONLY)
    try:
        found = record(**environ)
        found.read(fd)
        return found
    finally:
        os.close(fd)


def read(state: Path, **environ: str) -> Published | None:
    return opened(state, **environ).published


def readiness(state: Path, problem: str = "", **environ: str) -> Readiness:
    return opened(state, **environ).readiness(problem)


SNAPSHOT = {"S3_SYNC_LAYOUT": "snapshot"}
RELEASE = {"S3_SYNC_SOURCE": "release", **SNAPSHOT}
PINNED = RELEASE | {"S3_SYNC_REVISION": f"sha256-{'7' * 64}"}
SIGNED = RELEASE | {"S3_SYNC_TRUSTED_KEYS": "/nowhere"}


def test_ignores_an_unsigned_record_if_signatures_are_required(
    volume: Volume, folder: Path
) -> None:
    """Without keys, anyone who can write to the bucket could have published its files."""
    record(**RELEASE).write(volume, Fence(), R7)
    assert not readiness(folder / ".s3-sync", **SIGNED).ready

    record(**SIGNED).write(volume, Fence(), R7)

    assert readiness(folder / ".s3-sync", **SIGNED).ready
    assert readiness(folder / ".s3-sync", **RELEASE).ready  # without keys, any record counts


def test_a_record_survives_a_restart(volume: Volume, folder: Path) -> None:
    said = R7._replace(added=1, deleted=2)
    record().write(volume, Fence(), said)

    assert said == read(folder / ".s3-sync")
    assert readiness(folder / ".s3-sync").ready
    named = {"revision": "r7", "aim": "r7", "name": "r7", "added": 1, "deleted": 2}
    assert GOOD | named == json.loads((folder / ".s3-sync" / NAME).read_bytes())


def test_a_partial_state_has_no_revision_and_reports_its_shortfall(
    volume: Volume, folder: Path
) -> None:
    partial = Published("", "r7", "partial-1", 2, "r7", 1700000000.5, 3)
    record().write(volume, Fence(), partial)

    assert partial == read(folder / ".s3-sync")
    said = readiness(folder / ".s3-sync")
    assert (True, "") == (said.ready, said.revision)
    assert "2 files are missing or out of date" in said.shortfall
    assert "the gate refused r7" in said.shortfall


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
    ids=range(24),
)
def test_ignores_a_record_that_is_damaged_or_of_another_source(state: Path, content: bytes) -> None:
    (state / NAME).write_bytes(content)

    assert None is read(state)


def test_a_state_published_with_other_filters_does_not_count(volume: Volume, folder: Path) -> None:
    record(S3_SYNC_INCLUDE="*.py").write(volume, Fence(), R7)

    assert not readiness(folder / ".s3-sync").ready
    assert R7 == read(folder / ".s3-sync", S3_SYNC_INCLUDE="*.py")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e400", "1e20", "1" + "0" * 400])
def test_tolerates_an_invalid_publish_time(state: Path, number: str) -> None:
    """Anyone who can write to the volume can write this time, which is shown and computed with."""
    (state / NAME).write_text(json.dumps(GOOD).replace("1700000000.5", number))

    said = readiness(state)

    assert said.published_at is None or 0 <= said.published_at < 1 << 40


@pytest.mark.parametrize("kind", ["missing", "folder", "symlink", "fifo"])
def test_ignores_a_record_that_is_missing_or_not_a_regular_file(state: Path, kind: str) -> None:
    if kind == "folder":
        (state / NAME).mkdir()
    elif kind == "symlink":
        (state / "real").write_text(json.dumps(GOOD))
        (state / NAME).symlink_to("real")
    elif kind == "fifo":
        os.mkfifo(state / NAME)

    assert not readiness(state).ready


@pytest.mark.parametrize("damaged", [0, 2])
def test_is_not_ready_while_files_are_damaged_or_invisible(good: Path, damaged: int) -> None:
    (good / NAME).write_text(json.dumps(GOOD | {"damaged": damaged}))

    said = readiness(good, problem="the link is gone")

    problem = "2 published files are missing or altered on disk" if damaged else "the link is gone"
    assert (False, problem) == (said.ready, said.problem)
    assert ("r1", 1700000000.5) == (said.revision, said.published_at)
