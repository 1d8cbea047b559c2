"""SIGKILL at random moments, in both layouts: the next start repairs the target."""

import json
import os
import random
import time
from pathlib import Path

import pytest

from tests.conftest import Counts
from tests.scenarios.s3_sync import sealed
from tests.scenarios.s3_sync.histories import Bucket
from tests.support.aws.servers import S3Server
from tests.support.daemon import Daemon
from tests.support.s3_sync.snapshots import SNAPSHOT, shown, snapshot_leftovers
from tests.support.s3_sync.target_model import difference, expect, leftovers, read_tree
from tests.support.waiting import wait_until

FILES = 100
CHANGES = 50
FOREIGN = b"foreign at "
SIZES = (0, 100, 3_000, 30_000, 200_000)


class Rounds:
    """
    A bucket and a target in rounds of change, SIGKILL, check, restart, check.

    Attributes:
        kills: The number of kills so far.
        half_done: The number of kills that left the changes partial on disk.
    """

    def __init__(self, server: S3Server, target: Path, layout: str, seed: int) -> None:
        self.bucket = Bucket(server)
        self.target = target
        self.is_snapshot = layout == "snapshot"
        self.kills = 0
        self.half_done = 0
        self._random = random.Random(seed)
        self._foreign: dict[str, bytes] = {}
        self._versions: dict[str, set[bytes]] = {}
        # Estimated from the kills: when the first cycle of a process is half done.
        self._half_seconds = 0.3
        for number in range(FILES):
            self._put(f"pkg{number % 6}/file{number}.py")
        settings = SNAPSHOT if self.is_snapshot else {}
        self._daemon = Daemon(server, self.bucket.name, target, settings=settings)

    def run(self, kills: int) -> None:
        """Kill that many times, in the first cycle of a process or in a later one."""
        old: dict[str, bytes] = {}
        with self._daemon as daemon:
            while self.kills < kills:
                if self._random.random() < 0.7:
                    daemon.wait_until_synced()
                    self._check()
                    old = self._tree()
                    self._change(CHANGES)
                    progress = self._progress() + self._random.randrange(CHANGES * 60)
                    daemon.sighup()
                    self._wait_for_progress(progress)
                    self._kill(old)
                else:
                    # A random sleep is the only way to choose a random moment.
                    time.sleep(self._half_seconds * self._random.uniform(0, 2))
                    tried = self._kill(old)
                    self._half_seconds *= {"too early": 1.2, "too late": 1 / 1.2}.get(
                        tried, 1
                    )
                if not self.is_snapshot:
                    self._plant_where_files_are_missing()
                self._delete_what_was_just_published(old)
                old = self._tree()
                daemon.start()
            daemon.wait_until_synced()
            self._check()

    def _tree(self) -> dict[str, bytes]:
        """Return what consumers see."""
        if self.is_snapshot:
            return (
                shown(self.target) if os.path.lexists(self.target / "current") else {}
            )
        return read_tree(self.target)

    def _begun(self) -> list[Path]:
        """Return the files of the snapshots that are being built, or removed."""
        return [*self.target.glob(".s3-sync/snapshots/.*/*/*.py")]

    def _progress(self) -> int:
        """
        Return the size of the journal in bytes, or as much for the files of a new
        snapshot.
        """
        if self.is_snapshot:
            return 30 * len(self._begun())
        return (self.target / ".s3-sync/managed").stat().st_size

    def _last_in_journal(self) -> str:
        """
        Return the path that the daemon was publishing or deleting when it was killed.
        """
        lines = (self.target / ".s3-sync/managed").read_bytes().split(b"\n")[:-1]
        return str(json.loads(lines[-1])[0]) if lines else ""

    def _wait_for_progress(self, size_bytes: int) -> None:
        """Wait until the cycle is that far, or ends."""
        ended = len(self._daemon.find_events("cycle_finished"))
        wait_until(
            lambda: (
                self._progress() >= size_bytes
                or len(self._daemon.find_events("cycle_finished")) > ended
            ),
            "the cycle goes on, or ends",
            step_seconds=0.0002,
        )

    def _kill(self, old: dict[str, bytes]) -> str:
        """Kill, check the target, and return when in the cycle the kill came."""
        self._daemon.kill()
        self.kills += 1
        now = self._tree()
        new = expect(self.bucket.objects, foreign=self._foreign).files | self._foreign
        self.half_done += (
            bool(self._begun()) if self.is_snapshot else now not in (old, new)
        )

        assert not self.is_snapshot or now in (old, new), "not shown at once"
        if old.keys() - new.keys() - now.keys():  # deletions come last
            assert new.items() <= now.items()
        assert self._foreign.items() <= now.items()
        for path, content in now.items():
            assert path in self._foreign or content in self._versions[path], (
                f"partial file: {path}"
            )
        if old == new:
            return "nothing to do"
        return "too early" if now == old else "too late" if now == new else "half done"

    def _check(self) -> None:
        """Assert that the target equals the model and has nothing else."""
        wanted = (
            expect(self.bucket.objects, foreign=self._foreign).files | self._foreign
        )

        assert [] == difference(wanted, self._tree()), self._daemon.log()
        left = snapshot_leftovers if self.is_snapshot else leftovers
        assert [] == left(self.target)
        assert [] == self._daemon.stray_lines

    def _put(self, path: str) -> None:
        content = sealed.seal(
            path,
            self._random.randrange(10**9),
            self._random.randbytes(self._random.choice(SIZES)),
        )
        versions = self._versions.setdefault(path, set())
        versions.add(content)
        self.bucket.put(path, content)
        if path in self._foreign:  # the key replaces it
            versions.add(self._foreign.pop(path))

    def _delete(self, path: str) -> None:
        self.bucket.delete(path)
        # No cycle has replaced it yet: without the key it is a foreign file again.
        place = self.target / path
        if place.exists() and place.read_bytes().startswith(FOREIGN):
            self._foreign[path] = place.read_bytes()

    def _change(self, count: int) -> None:
        for _ in range(count):
            path = (
                f"pkg{self._random.randrange(6)}/file{self._random.randrange(FILES)}.py"
            )
            if path in self.bucket.objects and self._random.random() < 0.4:
                self._delete(path)
            else:
                self._put(path)

    def _plant_where_files_are_missing(self) -> None:
        """
        Put foreign files at paths that the daemon was about to publish or has deleted.

        Their keys are deleted, so that only a wrong journal could make the daemon
        remove them.
        """
        missing = [
            path for path in sorted(self._versions) if not (self.target / path).exists()
        ]
        chosen = set(self._random.sample(missing, min(3, len(missing))))
        for path in sorted(chosen | ({self._last_in_journal()} & set(missing))):
            if path in self.bucket.objects:
                self.bucket.delete(path)
            self._foreign[path] = FOREIGN + path.encode()
            (self.target / path).parent.mkdir(parents=True, exist_ok=True)
            (self.target / path).write_bytes(self._foreign[path])
        # Remove some again, so that their paths are free.
        for path in self._random.sample(sorted(self._foreign), len(self._foreign) // 4):
            (self.target / path).unlink()
            del self._foreign[path]

    def _delete_what_was_just_published(self, old: dict[str, bytes]) -> None:
        """
        Delete the keys of the last files that the cycle published, and of some others.
        """
        fresh = [
            path
            for path, content in self._tree().items()
            if path in self.bucket.objects and old.get(path) != content
        ]
        place = self.target / "current" if self.is_snapshot else self.target
        fresh.sort(key=lambda path: (place / path).stat().st_ctime_ns)
        for path in fresh:
            if path in fresh[-2:] or self._random.random() < 0.2:
                self._delete(path)


@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("layout", ["in-place", "snapshot"])
def test_converges_after_sigkill_at_any_moment(
    server: S3Server, counts: Counts, tmp_path: Path, layout: str
) -> None:
    rounds = Rounds(
        server, tmp_path / "target", layout, seed=1 if server.name == "moto" else 2
    )
    rounds.run((counts.kills + 1) // 2)
    said = f"{rounds.kills} kills, {rounds.half_done} with half of the work done"
    print(f"{layout}, {server.name}: {said}")

    assert rounds.half_done >= rounds.kills // 5
