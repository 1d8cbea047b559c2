"""
A volume whose layout is changed, by a rollout and among kills; see tests/s3_sync, too.
"""

import random
import time
from pathlib import Path

import pytest

from tests.conftest import Counts
from tests.s3_sync.cycle.test_layout_change import (
    FOREIGN,
    IN_PLACE,
    SNAPSHOT,
    WAYS,
    A,
    B,
    bucket_of_a,
    only,
    without_foreign,
)
from tests.scenarios.s3_sync.conftest import StartDaemon
from tests.support.snapshots import SwappingS3, consumed
from tests.support.waiting import wait_until

__all__ = ["bucket_of_a"]


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
