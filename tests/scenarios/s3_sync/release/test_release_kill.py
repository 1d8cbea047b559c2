"""SIGKILL at random moments while releases change: nothing partial is ever seen."""

import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Counts
from tests.support.aws.fake_s3 import FakeS3
from tests.support.daemon import Daemon
from tests.support.reading import reading
from tests.support.revisions import mark, read_revision
from tests.support.s3_sync.shelf import Shelf, release_daemon
from tests.support.s3_sync.snapshots import shown, snapshot_leftovers
from tests.support.waiting import wait_until

RETAIN_SECONDS = 5
SETTINGS = {
    "S3_SYNC_RETAIN_COUNT": "1",
    "S3_SYNC_RETAIN_FOR": f"{RETAIN_SECONDS}s",
}
MODULES = 150
EITHER = {"either", "either/inside.py"}
"""A file that becomes a folder and back: whatever blocks the new path is removed first."""


def make_files(number: int) -> dict[str, bytes]:
    """Return the files of a release; some come and go, one turns into a folder and back."""
    chance = random.Random(number)
    paths = [f"pkg{count % 7}/module{count}.py" for count in range(MODULES)]
    paths += [f"moving{chance.randrange(4)}/deep/down/file.py", f"odd{number % 2}.py"]
    paths.append("either" if number % 3 else "either/inside.py")
    return {path: mark(number, len(paths), path, chance.randrange(3_000)) for path in paths}


class Lives:
    """
    A daemon that is killed again and again while releases change.

    Attributes:
        kills: The number of kills so far.
        too_early: The number of kills before any change was visible.
    """

    def __init__(self, target: Path, s3: FakeS3, seed: int) -> None:
        self.kills = self.too_early = 0
        self.target = target
        self._chance = random.Random(seed)
        self._shelf = Shelf(s3)
        self._number = 0
        self._files: dict[str, dict[str, bytes]] = {}
        self._now = self._next()
        self.daemon = release_daemon(s3, target, SETTINGS, interval="0.1")
        # Estimated seconds until a publishing cycle is half done, after SIGHUP and after a start.
        self._half_seconds = {"later": 0.03, "first": 0.35}

    def _next(self) -> dict[str, bytes]:
        """Publish another release, or roll back to an earlier one."""
        if self._chance.random() < 0.2 and len(self._shelf.releases) > 1:
            revision = self._chance.choice(sorted(self._shelf.releases))
            release = self._shelf.releases[revision]
            self._shelf.point_to(release)
            return self._files[revision]
        self._number += 1
        files = make_files(self._number)
        revision = self._shelf.publish(files).revision
        self._files[revision] = files
        return files

    def run(self, kills: int) -> None:
        """Kill the daemon that many times."""
        with self.daemon:
            self._settle()
            while self.kills < kills:
                before, self._now = self._now, self._next()
                kind = self._chance.choice(("later", "first"))
                if kind == "first":
                    self.daemon.kill()
                    self.daemon.start()
                else:
                    self.daemon.sighup()
                # A random sleep is the only way to choose a random moment.
                time.sleep(self._half_seconds[kind] * self._chance.uniform(0, 2))
                self.daemon.kill()
                self.kills += 1
                assert [] == self.daemon.stray_lines
                self._adapt(kind, self._judge(before))
                self.daemon.start()
                if self._chance.random() < 0.5:
                    self._settle()
            self._settle()

    def _settle(self) -> None:
        wait_until(lambda: self.see() == self._now, "the release is there", 60)

    def _adapt(self, kind: str, found: str) -> None:
        factor = {"old": 1.25, "new": 0.8}.get(found, 1)
        self._half_seconds[kind] = min(1.5, max(0.002, self._half_seconds[kind] * factor))

    def see(self) -> dict[str, bytes]:
        """Return the files that a consumer finds."""
        try:
            return shown(self.target)
        except FileNotFoundError:  # pruned while being read
            return {}

    def _judge(self, before: Mapping[str, bytes]) -> str:
        """Check the target after a kill; return whether it shows the old or the new release."""
        seen = self.see()
        if seen in (before, self._now):
            self.too_early += seen == before
            return "new" if seen == self._now else "old"
        assert read_revision(str((self.target / "current").resolve())) >= 0  # an earlier one
        return "old"


@pytest.mark.timeout(3_600)
def test_readers_see_only_complete_releases_despite_sigkill(counts: Counts, tmp_path: Path) -> None:
    seen: dict[str, Any] = {}
    with FakeS3() as s3:
        lives = Lives(tmp_path / "dags", s3, seed=5)
        with lives.daemon:
            wait_until(lambda: lives.see() != {}, "the first release", 60)
            lives.daemon.kill()
        with reading(seen, lives.target / "current", RETAIN_SECONDS):
            lives.run(max(5, counts.kills // 2))
        wait_until_swept(lives.daemon)
    print(f"{lives.kills} kills, {lives.too_early} too early", seen)

    assert [] == seen["flaws"]
    assert 0 == seen["gone"]
    assert seen["changes"] >= 2
    assert lives.kills < 50 or 0 < lives.too_early < lives.kills
    assert [] == snapshot_leftovers(lives.target)


def wait_until_swept(daemon: Daemon) -> None:
    """Start once more: a start removes the leftovers of the last kill."""
    with daemon:
        daemon.wait_until_synced()
        assert 0 == daemon.terminate().code
