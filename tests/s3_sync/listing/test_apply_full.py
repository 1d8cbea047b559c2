"""Carrying out a plan on a full volume."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from s3_sync.tree.target import Target
from s3_sync.tree.volume import Volume
from sidecar_runtime.fence import Fence
from tests.runtime.recording import Log
from tests.s3_sync.listing.applying import Cycle, tree
from tests.support.fake_s3 import FakeS3


class FullTarget(Target):
    """A target on a volume with room for one more file after each deletion."""

    room = 0

    def publish(self, path: str, *rest: Any) -> bool:
        if self.room < 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room -= 1
        return super().publish(path, *rest)

    def delete(self, path: str, fence: Fence) -> bool:
        self.room += 1
        return super().delete(path, fence)


@pytest.fixture
def full(s3: FakeS3, volume: Volume, fence: Fence) -> Iterator[Cycle]:
    """A cycle on a volume that has just become full, with an old file on it."""
    target = FullTarget(volume, file_mode=0o644)
    target.room = 1
    s3.put("dags/old.py", b"old")
    cycle = Cycle(s3, target, fence)
    cycle.apply()
    s3.delete("dags/old.py")
    yield cycle
    target.close()


def test_on_a_full_volume_deletions_come_first(full: Cycle, folder: Path, log: Log) -> None:
    full.s3.put("dags/new.py", b"new")

    result = full.apply(delete=["old.py"])

    assert {"new.py": b"new"} == tree(folder)
    assert (1, 1) == (result.published, result.deleted)
    assert [1] == [event["files_to_delete"] for event in log.events("target_full")]


def test_a_volume_that_stays_full_ends_the_cycle(full: Cycle, folder: Path) -> None:
    full.s3.put("dags/new1.py", b"1")
    full.s3.put("dags/new2.py", b"2")

    with pytest.raises(OSError, match="No space left"):
        full.apply(delete=["old.py"])

    assert 1 == len(tree(folder)) and "old.py" not in tree(folder)


def test_a_full_volume_with_nothing_to_delete_ends_the_cycle(full: Cycle, folder: Path) -> None:
    full.s3.put("dags/new.py", b"new")

    with pytest.raises(OSError, match="No space left"):
        full.apply()

    assert {"old.py": b"old"} == tree(folder)
