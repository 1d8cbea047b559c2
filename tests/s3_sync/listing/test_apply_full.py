"""Applying a plan on a full volume."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from s3_sync.listing.apply import LARGE_BYTES
from s3_sync.tree.target import Target
from s3_sync.tree.volume import Volume
from sidecar_runtime.fence import Fence
from tests.runtime.recording import Log
from tests.s3_sync.listing.applying import Cycle, tree
from tests.support.aws.fake_s3 import FakeS3, error, is_get


class FullTarget(Target):
    """A target on a volume with room for one more file after each deletion."""

    room = 0
    free = 1 << 30

    def free_bytes(self) -> float:
        return self.free

    def publish(self, path: str, *rest: Any) -> bool:
        if self.room < 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room -= 1
        return super().publish(path, *rest)

    def delete(self, path: str, fence: Fence) -> bool:
        self.room += 1
        self.free += 3
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


# --- an object larger than the free space


@pytest.fixture
def small(full: Cycle) -> FullTarget:
    """The target of a cycle whose volume has room for all objects except large ones."""
    target = full.target
    assert isinstance(target, FullTarget)
    target.room, target.free = 10, LARGE_BYTES
    return target


def test_an_object_that_does_not_fit_does_not_hold_back_others(
    full: Cycle, small: FullTarget, folder: Path
) -> None:
    full.s3.put("dags/a.bin", bytes(LARGE_BYTES + 1))
    full.s3.put("dags/b.bin", bytes(LARGE_BYTES))
    full.s3.put("dags/c.py", b"c")

    result = full.apply()

    assert {"old.py", "b.bin", "c.py"} == tree(folder).keys()
    assert {"a.bin": "target_full"} == {path: e.reason for path, e in result.failed.items()}
    assert f"'a.bin' ({LARGE_BYTES + 1} bytes)" in result.failed["a.bin"].message
    assert "a.bin" not in full.gets(), "it is not downloaded for nothing"


def test_deletions_make_room_for_a_large_object(
    full: Cycle, small: FullTarget, folder: Path, log: Log
) -> None:
    full.s3.put("dags/a.bin", bytes(LARGE_BYTES + 3))

    result = full.apply(delete=["old.py"])

    assert {"a.bin"} == tree(folder).keys() and {} == result.failed
    assert 1 == len(log.events("target_full"))


def test_a_large_object_fails_if_deletions_free_too_little(
    full: Cycle, small: FullTarget, folder: Path
) -> None:
    full.s3.put("dags/a.bin", bytes(LARGE_BYTES + 4))
    full.s3.put("dags/c.py", b"c")

    result = full.apply(delete=["old.py"])

    assert {"c.py"} == tree(folder).keys()
    assert {"a.bin"} == result.failed.keys() and 1 == result.deleted


def test_freed_space_retries_no_files_that_failed_otherwise(full: Cycle, small: FullTarget) -> None:
    full.s3.put("dags/a.bin", bytes(LARGE_BYTES + 3))
    full.s3.put("dags/b.py", b"b")
    full.s3.inject(error(403, "AccessDenied"), is_get("b.py"))

    result = full.apply(delete=["old.py"])

    assert {"b.py"} == result.failed.keys()
    assert 1 == full.gets().count("b.py")
