"""
A power cut at any moment: with `S3_SYNC_FSYNC` the revision at `current` is complete
afterwards.

The image of a file system on a loop device contains what a power cut would leave.
"""

import os
import random
import time
from pathlib import Path

import pytest

from tests.conftest import Counts
from tests.scenarios.s3_sync.conftest import StartDaemon
from tests.support.machine.volumes import disk, power_cut
from tests.support.revisions import make_revision, read_revision
from tests.support.s3_sync.snapshots import SNAPSHOT, SwappingS3, wait_until_shown


@pytest.mark.timeout(3_600)
def test_a_power_cut_at_any_moment_leaves_a_complete_revision(
    counts: Counts, tmp_path: Path, start: StartDaemon
) -> None:
    chance = random.Random(3)
    settings = {**SNAPSHOT, "S3_SYNC_FSYNC": "true", "S3_SYNC_RETAIN_FOR": "0"}
    with SwappingS3(make_revision(0)) as s3, disk(tmp_path) as volume:
        daemon = start(settings, s3=s3, target=volume / "dags").until_synced()
        least = 0
        for number in range(1, counts.kills // 2 + 1):
            # Two cycles in a row that an upload disturbs publish a partial revision,
            # and report it.
            wait_until_shown(daemon, make_revision(number - 1))
            s3.swap(make_revision(number))
            if chance.random() < 0.3:
                wait_until_shown(daemon, make_revision(number))
                least = number
            else:
                daemon.sighup()
                # A random sleep is the only way to choose a random moment.
                time.sleep(chance.uniform(0, 0.06))
            with power_cut(daemon, tmp_path) as left:
                shown = read_revision(
                    os.path.realpath(left / "dags/current", strict=True)
                )
                assert least <= shown <= number
                least = shown
        with power_cut(daemon, tmp_path) as left:
            after = start(settings, s3=s3, target=left / "dags")
            after.wait_until_ready(30)
            wait_until_shown(after, s3.files())
            after.kill()
        daemon.kill()
