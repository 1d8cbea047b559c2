"""Layout changes on one volume: the old layout stays until the new one replaces it."""

import itertools
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests import Bodies, Texts
from tests.scenarios.s3_sync.conftest import StartDaemon
from tests.support.aws.fake_s3 import error, is_get
from tests.support.daemon import Daemon
from tests.support.s3_sync.scripted import published
from tests.support.s3_sync.snapshots import (
    SwappingS3,
    bucket_of_a,
    consumed,
    shown,
    snapshot_leftovers,
)
from tests.support.s3_sync.target_model import leftovers

__all__ = ["bucket_of_a"]

IN_PLACE = {"S3_SYNC_LAYOUT": "in-place", "S3_SYNC_GATE": "off"}
SNAPSHOT = {"S3_SYNC_LAYOUT": "snapshot", "S3_SYNC_GATE": "off"}
GATED = {"S3_SYNC_LAYOUT": "snapshot", "S3_SYNC_GATE": "syntax"}
WAYS = (IN_PLACE, SNAPSHOT, GATED)
TOUR = [IN_PLACE, SNAPSHOT, GATED, IN_PLACE, GATED, SNAPSHOT, IN_PLACE]
"""From each to each other."""
A = {
    "a.py": b"A = 1\n",
    "pkg/b.py": b"B = 1\n",
    "pkg/sub/c.py": b"C = 1\n",
    "current.py": b"",
}
B = {
    "a.py": b"A = 2\n",
    "pkg/b.py": b"B = 1\n",
    "new.py": b"N = 1\n",
    "pkg/sub/d": b"D = 1\n",
}
LATE = A | {"late.py": b"L = 1\n"}
FOREIGN = {"theirs.txt": b"theirs", "pkg/theirs.txt": b"theirs"}


def only(way: Mapping[str, str], target: Path) -> list[str]:
    """Return the leftovers of another layout."""
    if way["S3_SYNC_LAYOUT"] == "snapshot":
        theirs = {path.partition("/")[0] for path in FOREIGN}
        return [
            path
            for path in snapshot_leftovers(target)
            if os.path.basename(path) not in theirs
        ]
    return leftovers(target) + (
        ["current"] if os.path.lexists(target / "current") else []
    )


def without_foreign(files: Mapping[str, bytes]) -> Bodies:
    return {path: content for path, content in files.items() if path not in FOREIGN}


def restart(daemon: Daemon, way: Mapping[str, str]) -> None:
    daemon.kill()
    daemon.environment |= way
    daemon.start()


def test_every_change_removes_the_old_layout_and_keeps_foreign_files(
    s3: SwappingS3, target: Path, start: StartDaemon
) -> None:
    """
    Each layout is killed with files published; some changes coincide with a new
    revision.
    """
    s3.swap(A)
    daemon = start(TOUR[0]).until_synced()
    for path, content in FOREIGN.items():
        (target / path).write_bytes(content)
    for number, (before, after) in enumerate(itertools.pairwise(TOUR)):
        files = (B, LATE, A)[number % 3]  # LATE: no new revision
        s3.swap(files)
        restart(daemon, after)
        daemon.until_synced()
        step = f"{number}: {before} -> {after}"
        assert daemon.is_ready(), step
        assert files == without_foreign(consumed(target)), step
        assert FOREIGN == {path: (target / path).read_bytes() for path in FOREIGN}, step
        assert [] == only(after, target), step
        assert "unchanged" == daemon.sync()["result"], step
        s3.swap(LATE)
        daemon.sync()
        assert LATE == without_foreign(consumed(target)), step


@pytest.mark.parametrize(
    ("before", "after"), [(IN_PLACE, SNAPSHOT), (SNAPSHOT, IN_PLACE)]
)
def test_keeps_the_old_layout_until_most_new_files_are_readable(
    before: Texts,
    after: Texts,
    s3: SwappingS3,
    target: Path,
    start: StartDaemon,
) -> None:
    s3.swap(A)
    daemon = start(before).until_synced()
    s3.swap(B)
    for path in ("new.py", "a.py", "pkg/sub/d"):
        s3.inject(error(403, "AccessDenied"), is_get(f"dags/{path}"))
    restart(daemon, after)
    assert "access_denied_get" == daemon.wait_for_event("cycle_failed")["reason"]
    assert "access_denied_get" == daemon.sync()["reason"]

    if before == IN_PLACE:
        assert A == published(target)
        assert not os.path.lexists(target / "current")
    else:
        assert A == shown(target)
    assert 503 == daemon.get("/readyz").status
    s3.heal()
    daemon.sync()
    assert B == consumed(target)
    assert [] == only(after, target)
    assert daemon.is_ready()
