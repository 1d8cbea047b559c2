"""
Readers at full speed while the bucket changes: every file is complete, none is missing.
"""

import random
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Counts
from tests.scenarios.s3_sync import sealed
from tests.scenarios.s3_sync.histories import Bucket
from tests.support.aws.servers import S3Server
from tests.support.daemon import Daemon
from tests.support.reading import reading
from tests.support.s3_sync.target_model import difference, expect, read_tree

SIZES = (0, 100, 5_000, 5_000, 50_000, 300_000)


@pytest.mark.timeout(3_600)
def test_readers_never_see_a_partial_mixed_or_missing_file(
    server: S3Server, counts: Counts, tmp_path: Path
) -> None:
    chance = random.Random(7)
    target = tmp_path / "target"
    bucket = Bucket(server)
    for number in range(40):
        _put(bucket, chance, f"staying/pkg{number % 5}/file{number}")
        _put(bucket, chance, f"moving/file{number}")
    total: dict[str, Any] = {"reads": 0}
    cycles = 0
    with Daemon(server, bucket.name, target, interval="0.2") as daemon:
        daemon.wait_until_synced()
        while total["reads"] < counts.reads // 4:
            with reading(total, target, program=sealed.__file__):
                for _ in range(10):
                    _change(bucket, chance)
                    assert daemon.sync()["event"] == "cycle_finished", daemon.log()
                    cycles += 1
        daemon.sync()
    print(f"{server.name}: {cycles} cycles", {**total, "lost": len(total["lost"])})

    assert [] == total["flaws"]
    assert [] == total["lost"]
    assert total["versions"] > cycles, "the readers were too slow to see a change"
    assert [] == difference(expect(bucket.objects).files, read_tree(target))


def _put(
    bucket: Bucket, chance: random.Random, path: str, size: int | None = None
) -> None:
    payload = chance.randbytes(chance.choice(SIZES) if size is None else size)
    bucket.put(path, sealed.seal(path, chance.randrange(10**9), payload))


def _change(bucket: Bucket, chance: random.Random) -> None:
    """
    Overwrite some files, with the same or another size, and create and delete others.
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
