"""Files that are staged together and then renamed to their paths one by one."""

import os
import time
from pathlib import Path

import pytest

from s3_sync.release.rows import File
from s3_sync.tree.dates import SECOND_NS
from s3_sync.tree.staging import Staged
from s3_sync.tree.target import Target
from s3_sync.tree.walk import Blocked
from sidecar_runtime.fence import CycleAbandoned, Fence
from sidecar_runtime.volume.files import write_all
from tests.runtime.recording import Log
from tests.s3_sync.tree.handling import nothing, staged
from tests.support.machine.descriptors import held


def stage(target: Target, path: str, body: bytes = b"new", mode: str = "0644") -> Staged:
    staging = target.staging.open()
    write_all(staging.fd, body)
    return target.stage(path, File(path, len(body), len(body), "0" * 64, mode, 0), staging)


def put(target: Target, *files: Staged) -> None:
    with target.along(nothing) as way:
        for one in files:
            target.put(one, way, Fence(), nothing)


def test_publishes_staged_files_in_any_order(target: Target, folder: Path) -> None:
    paths = ["d/e/b.py", "a.py", "d/a.py", "d/e/a.py", "c.py"]
    put(target, *(stage(target, path, path.encode()) for path in paths))

    assert paths == [path for path in paths if (folder / path).read_bytes() == path.encode()]
    assert set(paths) == target.managed.files.keys()
    assert set() == target.damaged(iter(paths))
    assert [] == staged(folder)


def test_a_successor_is_dated_in_a_later_second(target: Target, folder: Path) -> None:
    put(target, stage(target, "a.py", b"one"))
    before = (folder / "a.py").stat().st_mtime_ns
    put(target, stage(target, "a.py", b"two"))

    assert (folder / "a.py").stat().st_mtime_ns // SECOND_NS > before // SECOND_NS


def test_a_staged_file_is_dated_when_it_is_published(target: Target, folder: Path) -> None:
    one = stage(target, "a.py")
    long_ago = one.managed.mtime_ns - 60 * SECOND_NS
    os.utime(folder / ".s3-sync/staging" / one.name, ns=(long_ago, long_ago))
    before = time.time_ns() - SECOND_NS
    put(target, one._replace(managed=one.managed._replace(mtime_ns=long_ago)))

    assert (folder / "a.py").stat().st_mtime_ns > before
    assert set() == target.damaged(iter(["a.py"]))


def test_symlinks_on_the_path_are_replaced_and_not_followed(
    target: Target, folder: Path, outside: Path, log: Log
) -> None:
    (folder / "d").symlink_to(outside)
    (folder / "a.py").symlink_to(outside / "a.py")
    put(target, stage(target, "a.py"), stage(target, "d/a.py"), stage(target, "d/b.py"))

    assert ["a.py"] == os.listdir(outside)
    assert b"victim" == (outside / "a.py").read_bytes()
    assert b"new" == (folder / "d/b.py").read_bytes()
    assert {"a.py", "d"} == {event["path"] for event in log.events("symlink_replaced")}


def test_a_foreign_file_blocks_only_the_paths_below_it(target: Target, folder: Path) -> None:
    (folder / "d").write_bytes(b"foreign")
    blocked, free = stage(target, "d/a.py"), stage(target, "e/a.py")
    with target.along(nothing) as way:
        with pytest.raises(Blocked):
            target.put(blocked, way, Fence(), nothing)
        target.put(free, way, Fence(), nothing)
    target.staging.drop(blocked)

    assert (folder / "e/a.py").exists()
    assert [] == staged(folder)


def test_a_revoked_fence_publishes_nothing(target: Target, folder: Path, revoked: Fence) -> None:
    one = stage(target, "d/a.py")
    with target.along(nothing) as way, pytest.raises(CycleAbandoned):
        target.put(one, way, revoked, nothing)
    target.staging.drop(one)
    target.staging.drop(one)  # already dropped: no effect

    assert [".s3-sync"] == os.listdir(folder)
    assert [] == staged(folder)


@pytest.mark.parametrize("path", ["../a.py", "d/../../a.py", "d/..", "."])
def test_paths_outside_the_target_are_refused(target: Target, path: str) -> None:
    with target.along(nothing) as way, pytest.raises(ValueError, match="not a path below"):
        way(path)


def test_closes_all_opened_folders(target: Target) -> None:
    before = held(target.path)
    put(target, *(stage(target, f"d{n}/e/a.py") for n in range(5)))

    assert len(before) == len(held(target.path))
