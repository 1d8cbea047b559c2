"""The modification times of published files."""

import os
import time
from pathlib import Path

from s3_sync.tree.dates import SECOND_NS
from s3_sync.tree.target import Target
from sidecar_runtime.fence import Fence
from tests.s3_sync.tree.handling import put


def test_a_changed_file_gets_a_later_second(folder: Path, target: Target) -> None:
    """Python's bytecode cache and Airflow's file processor compare whole seconds and sizes."""
    seconds = []
    for content in (b"one", b"two", b"six"):
        put(target, "a.py", content)
        seconds.append((folder / "a.py").stat().st_mtime_ns // SECOND_NS)

    assert seconds == sorted(set(seconds))


def test_a_file_republished_within_a_second_gets_a_later_one(folder: Path, target: Target) -> None:
    put(target, "a.py", b"one")
    first = (folder / "a.py").stat().st_mtime_ns // SECOND_NS
    target.delete("a.py", Fence())
    target.end_cycle(Fence())

    put(target, "a.py", b"two")

    assert (folder / "a.py").stat().st_mtime_ns // SECOND_NS > first


def test_replacing_a_file_from_the_future_uses_a_later_second(folder: Path, target: Target) -> None:
    (folder / "a.py").write_bytes(b"x")
    future = int(time.time()) + 5000
    os.utime(folder / "a.py", (future, future))

    put(target, "a.py")

    assert future + 1 == (folder / "a.py").stat().st_mtime


def test_a_new_file_has_the_time_of_its_publish(folder: Path, target: Target) -> None:
    before = time.time_ns()
    put(target, "a.py")

    assert before <= (folder / "a.py").stat().st_mtime_ns <= time.time_ns()
