"""
A reader that has resolved the link keeps what it reads for a while.
"""

import time
from pathlib import Path

from tests.support.revisions import make_revision
from tests.support.s3_sync.scripted import daemon_for
from tests.support.s3_sync.snapshots import (
    SNAPSHOT,
    SwappingS3,
    current,
    shown,
    snapshots,
    wait_until_shown,
)
from tests.support.waiting import wait_until


def test_a_resolved_snapshot_path_stays_for_the_retention_period(
    tmp_path: Path,
) -> None:
    target = tmp_path / "dags"
    stays_seconds = 3
    settings = {
        **SNAPSHOT,
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
