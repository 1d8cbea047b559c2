"""Layout changes on one volume: the old layout stays intact until the new one replaces it."""

import itertools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.s3_sync.process import Process
from tests.support.aws.fake_s3 import error, is_get
from tests.support.s3_sync.scripted import published
from tests.support.s3_sync.snapshots import SwappingS3, consumed, shown, snapshot_leftovers

KEYS = {"KEY_PATH": "dags"}
IN_PLACE = {"S3_SYNC_LAYOUT": "in-place", "S3_SYNC_GATE": "off"}
STAGED = {"S3_SYNC_LAYOUT": "in-place", "S3_SYNC_GATE": "syntax"}
SNAPSHOT = {"S3_SYNC_LAYOUT": "snapshot", "S3_SYNC_GATE": "off"}
GATED = {"S3_SYNC_LAYOUT": "snapshot", "S3_SYNC_GATE": "syntax"}
WAYS = (IN_PLACE, STAGED, SNAPSHOT, GATED)
TOUR = [WAYS[place] for place in (0, 1, 0, 2, 0, 3, 1, 2, 1, 3, 2, 3, 0)]
"""From each to each other."""
A = {"a.py": b"A = 1\n", "pkg/b.py": b"B = 1\n", "pkg/sub/c.py": b"C = 1\n", "current.py": b""}
B = {"a.py": b"A = 2\n", "pkg/b.py": b"B = 1\n", "new.py": b"N = 1\n", "pkg/sub/d": b"D = 1\n"}
LATE = A | {"late.py": b"L = 1\n"}
FOREIGN = {"theirs.txt": b"theirs", "pkg/theirs.txt": b"theirs"}


@pytest.fixture(name="s3")
def bucket_of_a() -> Iterator[SwappingS3]:
    """A bucket with revision A."""
    with SwappingS3(A) as s3:
        yield s3


def only(way: Mapping[str, str], target: Path) -> list[str]:
    """Return the leftovers of another layout."""
    if way["S3_SYNC_LAYOUT"] == "snapshot":
        theirs = {path.partition("/")[0] for path in FOREIGN}
        leftovers = snapshot_leftovers(target)
        return [path for path in leftovers if os.path.basename(path) not in theirs]
    ours = {"lock", "managed", "published.json", "staging", ".airflowignore"}
    if way["S3_SYNC_GATE"] != "off":
        ours |= {"staged", "staged.managed"}
    left = [name for name in os.listdir(target / ".s3-sync") if name not in ours]
    return left + (["current"] if os.path.lexists(target / "current") else [])


def test_every_change_removes_the_old_layout_and_keeps_foreign_files(
    s3: SwappingS3, process: Process
) -> None:
    """Each layout is killed with files published; some changes coincide with a new revision."""
    target = process.folder
    process.run(KEYS | TOUR[0])
    for path, content in FOREIGN.items():
        (target / path).parent.mkdir(exist_ok=True)
        (target / path).write_bytes(content)
    for number, (before, after) in enumerate(itertools.pairwise(TOUR)):
        files = (B, LATE, A)[number % 3]  # LATE: no new revision
        s3.swap(files)
        if before["S3_SYNC_LAYOUT"] == "in-place":
            (target / ".s3-sync/publishing").touch()  # as after a kill
        process.restart(KEYS | after)
        process.cycle()
        step = f"{number}: {before} -> {after}"
        assert process.is_ready, step
        assert files == without_foreign(consumed(target)), step
        assert FOREIGN == {path: (target / path).read_bytes() for path in FOREIGN}, step
        assert [] == only(after, target), step
        assert "unchanged" == process.cycle().result, step
        s3.swap(LATE)
        process.cycle()
        assert LATE == without_foreign(consumed(target)), step


def test_the_tour_covers_every_layout_change() -> None:
    assert 12 == len({(id(before), id(after)) for before, after in itertools.pairwise(TOUR)})


def without_foreign(files: Mapping[str, bytes]) -> dict[str, bytes]:
    return {path: content for path, content in files.items() if path not in FOREIGN}


@pytest.mark.parametrize(("before", "after"), [(IN_PLACE, SNAPSHOT), (SNAPSHOT, IN_PLACE)])
def test_keeps_the_old_layout_until_most_new_files_are_readable(
    before: dict[str, str], after: dict[str, str], s3: SwappingS3, process: Process
) -> None:
    process.run(KEYS | before)
    s3.swap(B)
    for path in ("new.py", "a.py", "pkg/sub/d"):
        s3.inject(error(403, "AccessDenied"), is_get(f"dags/{path}"))
    process.restart(KEYS | after)
    assert ["access_denied_get"] * 2 == [process.fail().reason for _ in range(2)]

    if before == IN_PLACE:
        assert A == published(process.folder)
        assert not os.path.lexists(process.folder / "current")
    else:
        assert A == shown(process.folder)
    assert not process.is_ready
    s3.heal()
    process.cycle(is_asked_for=True)
    assert B == consumed(process.folder)
    assert [] == only(after, process.folder)
    assert process.is_ready
