"""
A fleet of daemons and one-shots during releases, rollbacks and kills: readers see no
mix.
"""

import random
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import Counts
from tests.support.aws.fake_s3 import FakeS3
from tests.support.daemon import Daemon
from tests.support.revisions import make_revision, read_revision
from tests.support.s3_sync.releases import Release
from tests.support.s3_sync.shelf import Shelf, release_daemon
from tests.support.waiting import wait_until

MOST_TURNS = 20
KILLS = 2
# All at once, the starts would take each other's time for credentials, which has a
# limit.
STARTS = 6
# The polls that the test server can answer beside all other requests.
POLLS_PER_SECOND = 24
SETTINGS = {"S3_SYNC_RETAIN_FOR": "1h"}


def shown(daemon: Daemon) -> int:
    """
    Read all files that a daemon publishes, and return the number of their release.

    Raises:
        Flaw: The files are not one complete release.
    """
    return read_revision(str((daemon.target / "current").resolve()))


@pytest.mark.timeout(3_600)
def test_no_consumer_of_a_fleet_sees_a_mixed_release(
    counts: Counts, tmp_path: Path
) -> None:
    chance = random.Random(11)
    with FakeS3() as s3, ExitStack() as stack:
        shelf = Shelf(s3)
        made: dict[int, Release] = {1: shelf.publish(make_revision(1))}
        folders = [tmp_path / str(number) / "dags" for number in range(counts.fleet)]
        interval = f"{counts.fleet / POLLS_PER_SECOND:.1f}"
        daemons = [
            release_daemon(s3, folder, SETTINGS, interval=interval)
            for folder in folders
        ]
        for number, daemon in enumerate(daemons):
            stack.enter_context(daemon)
            daemons[max(number - STARTS, 0)].wait_until_synced(120)
        for daemon in daemons:
            daemon.wait_until_synced(120)
        turns = min(counts.fleet, MOST_TURNS)
        once = SETTINGS | {"S3_SYNC_ONE_SHOT": "true"}
        now = 1
        looks = 0

        def all_have(number: int, those: list[Daemon]) -> bool:
            nonlocal looks
            numbers = {daemon: shown(daemon) for daemon in daemons}
            looks += len(numbers)
            assert set(numbers.values()) <= made.keys()
            return all(numbers[daemon] == number for daemon in those)

        for number in range(2, turns + 2):
            before, now = now, number
            folders = [
                tmp_path / f"{number}-{one}" for one in range(counts.fleet // turns)
            ]
            fetches = [
                release_daemon(s3, folder / "dags", once).start() for folder in folders
            ]
            if number % 4 == 0:
                now = chance.choice(sorted(made))
                shelf.point_to(made[now])
            else:
                made[now] = shelf.publish(make_revision(now))
            for fetch in fetches:
                assert 0 == fetch.wait_for_exit().code
                assert shown(fetch) in (before, now)
            for victim in chance.sample(daemons, KILLS):
                victim.sighup()
                all_have(now, daemons)  # takes about as long as a cycle
                victim.kill()
                victim.start()
            waited_for = chance.sample(daemons, 2)
            wait_until(lambda: all_have(now, waited_for), f"release {now}", 120)  # noqa: B023
        wait_until(lambda: all_have(now, daemons), "the last release", 120)
        print(f"{len(daemons)} daemons, {looks} looks")
