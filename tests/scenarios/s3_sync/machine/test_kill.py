"""SIGKILL at random moments: the next start repairs the target."""

import json
import random
import time
from pathlib import Path

import pytest

from tests.conftest import Counts
from tests.scenarios.s3_sync import sealed
from tests.scenarios.s3_sync.histories import Bucket
from tests.support.aws.servers import S3Server
from tests.support.daemon import Daemon
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

    def __init__(self, server: S3Server, target: Path, seed: int) -> None:
        self.bucket = Bucket(server)
        self.target = target
        self.kills = 0
        self.half_done = 0
        self._random = random.Random(seed)
        self._foreign: dict[str, bytes] = {}
        self._versions: dict[str, set[bytes]] = {}
        # Estimated from the kills: when the first cycle of a process is half done.
        self._half_seconds = 0.3
        for number in range(FILES):
            self._put(f"pkg{number % 6}/file{number}.py")
        self._daemon = Daemon(server, self.bucket.name, target)

    def run(self, kills: int) -> None:
        """Kill that many times, in the first cycle of a process or in a later one."""
        old: dict[str, bytes] = {}
        with self._daemon as daemon:
            while self.kills < kills:
                if self._random.random() < 0.7:
                    daemon.wait_until_synced()
                    self._check()
                    old = read_tree(self.target)
                    self._change(CHANGES)
                    progress = self._journal_bytes() + self._random.randrange(CHANGES * 60)
                    daemon.sighup()
                    self._wait_for_journal(progress)
                    self._kill(old)
                else:
                    # A random sleep is the only way to choose a random moment.
                    time.sleep(self._half_seconds * self._random.uniform(0, 2))
                    tried = self._kill(old)
                    self._half_seconds *= {"too early": 1.2, "too late": 1 / 1.2}.get(tried, 1)
                self._plant_where_files_are_missing()
                self._delete_what_was_just_published(old)
                old = read_tree(self.target)
                daemon.start()
            daemon.wait_until_synced()
            self._check()

    def _journal_bytes(self) -> int:
        return (self.target / ".s3-sync/managed").stat().st_size

    def _last_in_journal(self) -> str:
        """Return the path that the daemon was publishing or deleting when it was killed."""
        lines = (self.target / ".s3-sync/managed").read_bytes().split(b"\n")[:-1]
        return str(json.loads(lines[-1])[0]) if lines else ""

    def _wait_for_journal(self, size_bytes: int) -> None:
        """Wait until the journal of managed files has this size, or the cycle ends."""
        ended = len(self._daemon.find_events("cycle_finished"))
        wait_until(
            lambda: (
                self._journal_bytes() >= size_bytes
                or len(self._daemon.find_events("cycle_finished")) > ended
            ),
            "the journal grows, or the cycle ends",
            step_seconds=0.0002,
        )

    def _kill(self, old: dict[str, bytes]) -> str:
        """Kill, check the target, and return when in the cycle the kill came."""
        self._daemon.kill()
        self.kills += 1
        now = read_tree(self.target)
        new = expect(self.bucket.objects, foreign=self._foreign).files | self._foreign
        self.half_done += now not in (old, new)

        if old.keys() - new.keys() - now.keys():  # deletions come last
            assert new.items() <= now.items()
        assert self._foreign.items() <= now.items()
        for path, content in now.items():
            assert path in self._foreign or content in self._versions[path], f"partial file: {path}"
        if old == new:
            return "nothing to do"
        return "too early" if now == old else "too late" if now == new else "half done"

    def _check(self) -> None:
        """Assert that the target equals the model and has nothing else."""
        wanted = expect(self.bucket.objects, foreign=self._foreign).files | self._foreign

        assert [] == difference(wanted, read_tree(self.target)), self._daemon.log()
        assert [] == leftovers(self.target)
        assert [] == self._daemon.stray_lines

    def _put(self, path: str) -> None:
        content = sealed.seal(
            path, self._random.randrange(10**9), self._random.randbytes(self._random.choice(SIZES))
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
            path = f"pkg{self._random.randrange(6)}/file{self._random.randrange(FILES)}.py"
            if path in self.bucket.objects and self._random.random() < 0.4:
                self._delete(path)
            else:
                self._put(path)

    def _plant_where_files_are_missing(self) -> None:
        """
        Put foreign files at paths that the daemon was about to publish or has deleted.

        Their keys are deleted, so that only a wrong journal could make the daemon remove them.
        """
        missing = [path for path in sorted(self._versions) if not (self.target / path).exists()]
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
        """Delete the keys of the last files that the cycle published, and of some others."""
        fresh = [
            path
            for path, content in read_tree(self.target).items()
            if path in self.bucket.objects and old.get(path) != content
        ]
        fresh.sort(key=lambda path: (self.target / path).stat().st_ctime_ns)
        for path in fresh:
            if path in fresh[-2:] or self._random.random() < 0.2:
                self._delete(path)


@pytest.mark.timeout(3_600)
def test_converges_after_sigkill_at_any_moment(
    server: S3Server, counts: Counts, tmp_path: Path
) -> None:
    rounds = Rounds(server, tmp_path / "target", seed=1 if server.name == "moto" else 2)
    rounds.run((counts.kills + 1) // 2)
    print(f"{server.name}: {rounds.kills} kills, {rounds.half_done} with half of the work done")

    assert rounds.half_done >= rounds.kills // 5
