"""
Readers at full speed while the bucket changes: every file is whole, none is lost.
"""

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Counts
from tests.scenarios.s3_sync import sealed
from tests.scenarios.s3_sync.histories import Bucket
from tests.scenarios.s3_sync.model import difference, expect, read_tree
from tests.support.daemon import Daemon
from tests.support.servers import MotoServer, RcloneServer, S3Server

READERS = 2
SIZES = (0, 100, 5_000, 5_000, 50_000, 300_000)


class Reader:
    """
    One reading process; `observations` is there after `stop`.
    """

    def __init__(self, target: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, sealed.__file__, str(target)],
            env={"PATH": "/usr/bin:/bin"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.observations: dict[str, Any] = {}

    def stop(self) -> None:
        """
        Let it finish its round and say what it saw.
        """
        output, _ = self._process.communicate("")
        self.observations = json.loads(output)

    def kill(self) -> None:
        """
        End it at once.
        """
        self._process.kill()
        self._process.wait()


@contextmanager
def _readers(target: Path) -> Iterator[list[Reader]]:
    readers = [Reader(target) for _ in range(READERS)]
    try:
        yield readers
    finally:
        for reader in readers:
            reader.kill()


@pytest.mark.timeout(3_600)
def test_readers_never_see_a_partial_a_mixed_or_a_lost_file_on_moto(
    moto: MotoServer, counts: Counts, tmp_path: Path
) -> None:
    _read_while_the_bucket_changes(moto, counts.reads // 2, tmp_path)


@pytest.mark.timeout(3_600)
def test_readers_never_see_a_partial_a_mixed_or_a_lost_file_on_rclone(
    rclone: RcloneServer, counts: Counts, tmp_path: Path
) -> None:
    _read_while_the_bucket_changes(rclone, counts.reads // 2, tmp_path)


def _read_while_the_bucket_changes(server: S3Server, reads: int, tmp_path: Path) -> None:
    chance = random.Random(7)
    target = tmp_path / "target"
    bucket = Bucket(server)
    for number in range(40):
        _put(bucket, chance, f"staying/pkg{number % 5}/file{number}")
        _put(bucket, chance, f"moving/file{number}")
    total: dict[str, Any] = {"reads": 0, "versions": 0, "missing": 0, "lost": [], "flaws": []}
    cycles = 0
    with Daemon(server, bucket.name, target, interval="0.2") as daemon:
        daemon.wait_until_synced()
        while total["reads"] < reads:
            with _readers(target) as readers:
                for _ in range(10):
                    _change(bucket, chance)
                    assert daemon.sync()["event"] == "cycle_finished", daemon.log()
                    cycles += 1
                for reader in readers:
                    reader.stop()
                    for name, value in reader.observations.items():
                        total[name] += value
        daemon.sync()
    print(f"{server.name}: {cycles} cycles", {**total, "lost": len(total["lost"])})

    assert [] == total["flaws"]
    assert [] == total["lost"]
    assert total["versions"] > cycles, "the readers were too slow to see a change"
    assert [] == difference(expect(bucket.objects).files, read_tree(target))


def _put(bucket: Bucket, chance: random.Random, path: str, size: int | None = None) -> None:
    payload = chance.randbytes(chance.choice(SIZES) if size is None else size)
    bucket.put(path, sealed.seal(path, chance.randrange(10**9), payload))


def _change(bucket: Bucket, chance: random.Random) -> None:
    """
    Overwrite some files, same size and another, and let others come and go.
    """
    for _ in range(8):
        path = chance.choice(sorted(bucket.objects))
        same_size = len(bucket.objects[path].partition(b"\n")[2])
        _put(bucket, chance, path, chance.choice((None, same_size)))
    for number in chance.sample(range(40), 4):
        path = f"moving/file{number}"
        if path in bucket.objects:
            bucket.delete(path)
        else:
            _put(bucket, chance, path)
