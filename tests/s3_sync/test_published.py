"""`published.json`: what any process reads in the record of another."""

import json
import os
from pathlib import Path

import pytest

from s3_sync.published import NAME, UNFINISHED, Published, Record
from s3_sync.readiness import readiness
from s3_sync.settings import load_settings
from s3_sync.volume import Volume
from sidecar_runtime.fence import Fence
from sidecar_runtime.health import Readiness
from tests import Facts

SOURCE = "s3://bucket/dags/"
R7 = Published("r7", "r7", "r7", 0, "", 1700000000.5, 3)
GOOD: Facts = {
    "revision": "r1", "aim": "r1", "name": "r1", "missing": 0, "fallback": "",
    "published_at": 1700000000.5, "files": 3, "damaged": 0, "added": 1, "changed": 0, "deleted": 0,
    "source": SOURCE, "kind": "listing", "layout": "in-place",
}  # fmt: skip

BAD_VALUES = [
    ("source", "s3://bucket/other/"), ("source", "s3://bucket/dags"), ("revision", None),
    ("revision", 1), ("published_at", "yesterday"), ("kind", "release"), ("missing", 1),
    ("name", ""), ("layout", "snapshot"), ("layout", 7), ("sequences", {"key": "7"}),
]  # fmt: skip


def record(state: int, **environ: str) -> Record:
    """Return the record that a process with these settings reads."""
    return Record(
        load_settings(
            {
                "AWS_BUCKET": "bucket",
                "KEY_PATH": "dags",
                "DEST_PATH": "/nowhere",
                **environ,
            }
        )[0],
        state,
    )


def opened(state: Path, **environ: str) -> Record:
    """Return the record that a process with these settings reads."""
    fd = os.open(state, os.O_RDONLY)
    try:
        return record(fd, **environ)
    finally:
        os.close(fd)


def read(state: Path, **environ: str) -> Published | None:
    return opened(state, **environ).published


def ready(state: Path, **environ: str) -> Readiness:
    return readiness(read(state, **environ))


RELEASE = {"S3_SYNC_SOURCE": "release", "S3_SYNC_LAYOUT": "snapshot"}
SIGNED = RELEASE | {"S3_SYNC_TRUSTED_KEYS": "/nowhere"}


def test_a_record_survives_a_restart_and_says_what_is_missing(
    volume: Volume, folder: Path
) -> None:
    state = folder / ".s3-sync"
    said = R7._replace(added=1, deleted=2)
    record(volume.state).write(Fence(), said)
    assert said == read(state)
    assert ready(state).ready
    assert GOOD | {
        "revision": "r7",
        "aim": "r7",
        "name": "r7",
        "added": 1,
        "deleted": 2,
    } == json.loads((state / NAME).read_bytes())

    short = Published("", "r7", "partial-1", 2, "r7", 1700000000.5, 3)
    record(volume.state).write(Fence(), short)
    found = ready(state)

    assert short == read(state)
    assert (True, "") == (found.ready, found.revision)
    assert "2 files are missing or out of date" in found.shortfall
    assert "the gate refused r7" in found.shortfall
    assert (
        "a change of 2 files is in progress"
        == Published(name=UNFINISHED, missing=2).shortfall
    )


def test_a_record_without_a_required_signature_or_of_other_filters_does_not_count(
    volume: Volume, folder: Path
) -> None:
    """
    Without keys, anyone who can write to the bucket could have published its files.
    """
    state = folder / ".s3-sync"
    record(volume.state, **RELEASE).write(Fence(), R7)
    assert not ready(state, **SIGNED).ready
    record(volume.state, **SIGNED).write(Fence(), R7)
    assert ready(state, **SIGNED).ready
    assert ready(state, **RELEASE).ready  # without keys, any record counts
    record(volume.state, **SIGNED).write(Fence(), R7._replace(sequences={"key": 7}))
    # a replayed pointer stays refused after it
    other = opened(state, **SIGNED, S3_SYNC_REVISION=f"sha256-{'0' * 64}")
    assert ({"key": 7}, None) == (other.sequences, other.published)

    record(volume.state, S3_SYNC_INCLUDE="*.py").write(Fence(), R7)
    assert not ready(state).ready
    assert R7 == read(state, S3_SYNC_INCLUDE="*.py")


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"null", b"[]", b'"r1"', b"\xff\xfe", b"[" * 100_000),
        json.dumps(GOOD)[:-5].encode(),
        *(
            json.dumps(GOOD).replace("1700000000.5", number).encode()
            for number in ("NaN", "Infinity", "1e400", "1e20", "1" + "0" * 400)
        ),
        *(json.dumps(GOOD | {name: value}).encode() for name, value in BAD_VALUES),
    ],
    ids=range(24),
)
def test_ignores_a_record_that_is_damaged_or_of_another_source(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / NAME).write_bytes(content)

    assert None is read(tmp_path)


def test_a_volume_that_fails_says_nothing_about_the_record() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        record(-1)
