"""
Readers at full speed while the bucket changes: every file is complete, none is missing.
"""

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.conftest import Counts
from tests.scenarios.s3_sync.conftest import StartDaemon
from tests.support.aws.fake_s3 import FakeS3
from tests.support.s3_sync.scripted import published

LINES = (1, 10, 500, 500, 5_000, 30_000)
BLOCK_BYTES = 4_096


class Readers:
    """What readers have seen: how many files, which states of them, and flaws."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.reads = 0
        self.states: set[bytes] = set()
        self.flaws: list[str] = []

    @contextmanager
    def reading(self) -> Iterator[None]:
        ended = threading.Event()
        with ThreadPoolExecutor(2) as pool:
            found = [pool.submit(self._read_until, ended) for _ in range(2)]
            try:
                yield
            finally:
                ended.set()
        assert [None, None] == [one.result() for one in found]

    def _read_until(self, ended: threading.Event) -> None:
        while not ended.is_set():
            for place in self._folder.rglob("*"):
                try:
                    self._read(place)
                except FileNotFoundError:
                    if place.parent.name == "staying":
                        self.flaws.append(f"{place} is lost")

    def _read(self, place: Path) -> None:
        """Read a file block by block, as a slow reader does."""
        if place.is_dir() or ".s3-sync" in place.parts:
            return
        with place.open("rb", buffering=0) as file:
            lines = b"".join(iter(partial(file.read, BLOCK_BYTES), b"")).splitlines()
        self.reads += 1
        self.states.update(lines)
        if len(set(lines)) != 1 or lines[0].split()[0] != b"%d" % len(lines):
            self.flaws.append(f"{place} is mixed or cut off")


@pytest.mark.timeout(3_600)
def test_readers_never_see_a_partial_mixed_or_missing_file(
    s3: FakeS3, target: Path, start: StartDaemon, counts: Counts
) -> None:
    """Of some files, the size changes; others are created and deleted."""
    chance = random.Random(7)

    def put(key: str) -> None:
        count = chance.choice(LINES)
        s3.put(key, b"%d %d\n" % (count, chance.randrange(10**9)) * count)

    s3.objects.clear()
    staying = [f"dags/staying/{number}" for number in range(40)]
    for key in staying:
        put(key)
    daemon = start(interval="0.2").until_synced()
    readers = Readers(target)
    with readers.reading():
        while readers.reads < counts.reads // 4:
            for key in chance.sample(staying, 8):
                put(key)
            for number in chance.sample(range(40), 4):
                key = f"dags/moving/{number}"
                if key in s3.objects:
                    s3.delete(key)
                else:
                    put(key)
            assert "cycle_finished" == daemon.sync()["event"], daemon.log()

    assert [] == readers.flaws
    assert len(readers.states) > len(staying), "the readers were too slow"
    daemon.sync()
    assert s3.files() == published(target)
