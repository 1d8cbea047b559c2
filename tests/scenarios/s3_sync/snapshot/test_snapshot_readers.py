"""
Readers at full speed while revisions change quickly: each tree is one complete
revision.
"""

import random
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Counts
from tests.support.daemon import Daemon
from tests.support.reading import reading
from tests.support.revisions import make_revision
from tests.support.s3_sync.scripted import daemon_for
from tests.support.s3_sync.snapshots import (
    SNAPSHOT,
    SwappingS3,
    current,
    shown,
    snapshot_leftovers,
    snapshots,
    wait_until_shown,
)
from tests.support.waiting import wait_until

RETAIN_SECONDS = 4
SETTINGS = {
    **SNAPSHOT,
    "S3_SYNC_RETAIN_COUNT": "1",
    "S3_SYNC_RETAIN_FOR": f"{RETAIN_SECONDS}s",
}
SETTLE_SECONDS = 1.5


class Churn:
    """A bucket whose revision changes atomically, sometimes back to an earlier one."""

    def __init__(self, s3: SwappingS3, chance: random.Random) -> None:
        self._s3 = s3
        self._chance = chance
        self._last = [0, 0]
        self.number = 0

    def turn(self) -> None:
        """Replace all files."""
        self.number += 1
        is_back = self._chance.random() < 0.2
        self._last = [self._last[1], self._last[0] if is_back else self.number]
        self._s3.swap(make_revision(self._last[1]))

    def live(self, daemon: Daemon, publishes: int) -> None:
        """
        Change the bucket, often in the middle of a cycle, until the daemon has
        published enough.

        Never in two cycles in a row: as documented, such changes would be published as
        partial.
        """
        daemon.wait_for_event("target_acquired", 60)
        began = len(daemon.find_events("cycle_finished", result="changed"))
        deadline = time.monotonic() + 60
        # The first change after a start may meet the first cycle.
        is_mid_cycle = True
        while (
            len(daemon.find_events("cycle_finished", result="changed")) - began
            < publishes
        ):
            assert time.monotonic() < deadline, daemon.log()
            self.turn()
            is_mid_cycle = not is_mid_cycle and self._chance.random() < 0.8
            if is_mid_cycle:
                seen = len(daemon.events)
                daemon.sighup()
                # the next sync sees its own
                daemon.wait_for_event("signal_received", after=seen)
                # A random sleep is the only way to choose a random moment.
                time.sleep(self._chance.uniform(0, 0.1))
            else:
                daemon.sync()


@pytest.mark.timeout(3_600)
def test_no_tree_is_mixed_while_revisions_change_and_the_daemon_is_killed(
    counts: Counts, tmp_path: Path
) -> None:
    chance = random.Random(4)
    target = tmp_path / "dags"
    trees = counts.reads // 20
    lives = 0
    seen: dict[str, Any] = {"trees": 0}
    with SwappingS3() as s3:
        churn = Churn(s3, chance)
        churn.turn()
        with daemon_for(s3, target, settings=SETTINGS) as daemon:
            daemon.wait_until_synced()
            while lives < counts.kills // 4 or seen["trees"] < trees:
                with reading(seen, target / "current", RETAIN_SECONDS):
                    # Long enough for the readers to return to a replaced snapshot.
                    deadline = time.monotonic() + RETAIN_SECONDS
                    while time.monotonic() < deadline:
                        churn.live(daemon, 8)
                        churn.turn()
                        daemon.sighup()
                        time.sleep(chance.uniform(0, 0.1))
                        daemon.kill()
                        lives += 1
                        assert [] == daemon.stray_lines
                        assert [] == daemon.find_events("cycle_failed"), daemon.log()
                        daemon.start()
                        churn.live(daemon, 2)
            churn.turn()
            wait_until_shown(daemon, s3.files())
            assert 0 == daemon.terminate().code
    print(f"{lives} kills, {churn.number} revisions", seen)

    assert [] == seen["flaws"]
    assert 0 == seen["gone"]
    assert seen["changes"] >= 4 * lives, "the readers were too slow to see a change"
    assert seen["late"] < seen["trees"] / 10
    assert seen["kept"] > 0
    assert [] == snapshot_leftovers(target)
    assert current(target) in snapshots(target)


def test_a_resolved_snapshot_path_stays_for_the_retention_period(
    tmp_path: Path,
) -> None:
    target, stays_seconds = tmp_path / "dags", 3
    settings = SETTINGS | {
        "S3_SYNC_RETAIN_COUNT": "0",
        "S3_SYNC_RETAIN_FOR": f"{stays_seconds}s",
    }
    with (
        SwappingS3(make_revision(1)) as s3,
        daemon_for(s3, target, interval="0.1", settings=settings) as daemon,
    ):
        daemon.wait_until_synced()
        first = target / ".s3-sync/snapshots" / current(target)
        assert make_revision(1) == shown(target)
        resolved_at = time.monotonic()
        for number in (2, 3, 4):
            s3.swap(make_revision(number))
            wait_until_shown(daemon, make_revision(number))
        wait_until(lambda: not first.exists(), "the first one is removed")
        assert time.monotonic() - resolved_at >= stays_seconds
        wait_until(lambda: len(snapshots(target)) == 1, "all others are removed")
