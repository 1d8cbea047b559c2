"""
A volume whose layout is changed: both stay whole, and what the other one left goes in the end.
"""

import itertools
import os
import random
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.conftest import Counts
from tests.scenarios.s3_sync.conftest import StartDaemon
from tests.scenarios.s3_sync.snapshots import SwappingS3, consumed, shown, snapshot_leftovers
from tests.support.fake_s3 import error, is_get
from tests.support.scripted import published
from tests.support.waiting import wait_until

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


@pytest.fixture
def s3() -> Iterator[SwappingS3]:
    """A bucket with revision A."""
    with SwappingS3(A) as s3:
        yield s3


def only(way: Mapping[str, str], target: Path) -> list[str]:
    """What another layout has left, and should not have."""
    if way["S3_SYNC_LAYOUT"] == "snapshot":
        theirs = {path.partition("/")[0] for path in FOREIGN}
        leftovers = snapshot_leftovers(target)
        return [path for path in leftovers if os.path.basename(path) not in theirs]
    ours = {"lock", "managed", "published.json", "staging", ".airflowignore"}
    if way["S3_SYNC_GATE"] != "off":
        ours |= {"staged", "staged.managed"}
    left = [name for name in os.listdir(target / ".s3-sync") if name not in ours]
    return left + (["current"] if os.path.lexists(target / "current") else [])


def test_nothing_of_the_other_layout_is_left_and_nothing_of_others_is_lost(
    s3: SwappingS3, target: Path, start: StartDaemon
) -> None:
    """From each way to each other, on one volume; now and then the bucket has changed meanwhile."""
    daemon = start(TOUR[0]).until_synced()
    for path, content in FOREIGN.items():
        (target / path).parent.mkdir(exist_ok=True)
        (target / path).write_bytes(content)
    for number, (before, after) in enumerate(itertools.pairwise(TOUR)):
        daemon.terminate()
        files = (B, LATE, A)[number % 3]  # LATE: as it was
        s3.swap(files)
        daemon.environment |= after
        daemon.start().wait_until_synced()
        daemon.wait_until_ready()
        step = f"{number}: {before} -> {after}"
        assert files == without_foreign(consumed(target)), step
        assert FOREIGN == {path: (target / path).read_bytes() for path in FOREIGN}, step
        assert [] == only(after, target), step
        assert "unchanged" == daemon.sync()["result"], step
        s3.swap(LATE)
        daemon.sync()
        assert LATE == without_foreign(consumed(target)), step


def without_foreign(files: Mapping[str, bytes]) -> dict[str, bytes]:
    return {path: content for path, content in files.items() if path not in FOREIGN}


@pytest.mark.parametrize(("before", "after"), [(IN_PLACE, SNAPSHOT), (SNAPSHOT, IN_PLACE)])
def test_old_layout_stays_until_the_new_one_has_most_of_it(
    before: Mapping[str, str], after: Mapping[str, str], s3: SwappingS3, start: StartDaemon
) -> None:
    daemon = start(before).until_synced()
    daemon.terminate()
    s3.swap(B)
    for path in ("new.py", "a.py", "pkg/sub/d"):
        s3.inject(error(403, "AccessDenied"), is_get(f"dags/{path}"))
    daemon.environment |= after
    daemon.start().wait_for_event("cycle_failed", reason="access_denied_get")
    daemon.sync()

    if before == IN_PLACE:
        assert A == published(daemon.target)
        assert not os.path.lexists(daemon.target / "current")
        assert 503 == daemon.get("/readyz").status
    else:
        assert A == shown(daemon.target)
    s3.heal()
    daemon.sync()
    assert B == consumed(daemon.target)
    assert [] == only(after, daemon.target)
    assert 200 == daemon.get("/readyz").status


def test_stand_by_of_another_layout_is_not_ready_before_its_own_is_there(
    target: Path, start: StartDaemon
) -> None:
    """A rollout on a shared volume that changes the layout: nothing is at `current` yet."""
    old = start(IN_PLACE).until_synced()
    new = start(SNAPSHOT, interval="0.2")
    new.wait_for_event("target_waiting")
    wait_until(lambda: new.status()["cycles"], "it has looked")

    assert 503 == new.get("/readyz").status
    old.terminate()
    new.wait_until_synced()
    new.wait_until_ready()
    assert A == consumed(target)


def test_the_tour_comes_by_everywhere() -> None:
    assert 12 == len({(id(before), id(after)) for before, after in itertools.pairwise(TOUR)})


@pytest.mark.timeout(3_600)
def test_change_of_the_layout_survives_kills_at_any_moment(
    counts: Counts, s3: SwappingS3, target: Path, start: StartDaemon
) -> None:
    chance = random.Random(11)
    daemon = start(IN_PLACE).until_synced()
    for path, content in FOREIGN.items():
        (target / path).write_bytes(content)
    for number in range(counts.kills // 2):
        daemon.kill()
        way = chance.choice(WAYS)
        files = chance.choice((A, B)) | {"number.py": b"# %d\n" % number}
        s3.swap(files)
        daemon.environment |= way
        daemon.start()
        daemon.wait_for_event("target_acquired", 60)
        # The one place where time itself is what is tested.
        time.sleep(chance.uniform(0, 0.1))
        if number % 3 == 0:
            daemon.wait_until_synced()
            assert files == without_foreign(consumed(target)), (way, daemon.log())
            assert [] == only(way, target)
            assert FOREIGN == {path: (target / path).read_bytes() for path in FOREIGN}
