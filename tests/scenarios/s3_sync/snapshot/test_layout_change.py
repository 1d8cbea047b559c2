"""A volume whose layout changes while the daemon is killed; tests/s3_sync has the single steps."""

import random
import time
from pathlib import Path

import pytest

from tests.conftest import Counts
from tests.s3_sync.cycle.test_layout_change import (
    FOREIGN,
    IN_PLACE,
    WAYS,
    A,
    B,
    bucket_of_a,
    only,
    without_foreign,
)
from tests.scenarios.s3_sync.conftest import StartDaemon
from tests.support.s3_sync.snapshots import SwappingS3, consumed

__all__ = ["bucket_of_a"]


@pytest.mark.timeout(3_600)
def test_a_layout_change_survives_sigkill_at_any_moment(
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
        # A random sleep is the only way to choose a random moment.
        time.sleep(chance.uniform(0, 0.1))
        if number % 3 == 0:
            daemon.wait_until_synced()
            assert files == without_foreign(consumed(target)), (way, daemon.log())
            assert [] == only(way, target)
            assert FOREIGN == {path: (target / path).read_bytes() for path in FOREIGN}
