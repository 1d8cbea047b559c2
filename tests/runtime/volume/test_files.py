"""
Atomic writes, safe reads, and the lock that allows one publisher at a time.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar_runtime.volume.files import (
    FACTS_BYTES,
    TargetLock,
    read_file,
    write_file,
)
from tests.support.machine.descriptors import held
from tests.support.machine.volumes import full_disk

OLD, NEW = b"old content", b"new content, which is longer"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


# --- write_file


@pytest.mark.parametrize("room_bytes", [0, 5])
def test_a_full_disk_leaves_only_the_old_file(tmp_path: Path, room_bytes: int) -> None:
    (tmp_path / "file").write_bytes(OLD)
    before = held(tmp_path)

    with full_disk(room_bytes), pytest.raises(OSError, match="too large"):
        write_file(tmp_path / "file", NEW, 0o644, fsync=False)

    assert (tmp_path / "file").read_bytes() == OLD
    assert os.listdir(tmp_path) == ["file"]
    assert held(tmp_path) == before


def test_a_killed_writer_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    """A reader sees one of the two contents, complete, at every moment."""
    contents = {bytes([65 + n]) * 200_000 for n in range(2)}
    path = tmp_path / "file"
    path.write_bytes(b"A" * 200_000)
    program = (
        "import itertools, sys\n"
        "from sidecar_runtime.volume.files import write_file\n"
        "print('go', flush=True)\n"
        "for n in itertools.count():\n"
        "    write_file(sys.argv[1], bytes([65 + n % 2]) * 200_000, 0o644, fsync=False)\n"
    )
    for _ in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE
        )
        assert writer.stdout is not None and writer.stdout.readline() == b"go\n"
        for _ in range(300):
            assert path.read_bytes() in contents
        writer.kill()
        writer.wait()
        writer.stdout.close()

        assert path.read_bytes() in contents
        assert set(os.listdir(tmp_path)) <= {"file", ".file.new"}


# --- read_file


def test_refuses_to_read_anything_but_a_regular_file(tmp_path: Path, folder: int) -> None:
    (tmp_path / "real").write_bytes(NEW)
    (tmp_path / "link").symlink_to("real")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "socket"))
        before = held(tmp_path)

        for name in ("link", "pipe", "folder", "socket", "missing"):
            with pytest.raises(OSError):  # noqa: PT011 - each has an error of its own
                read_file(name, FACTS_BYTES, dir_fd=folder)

        assert held(tmp_path) == before


# --- the lock


@pytest.mark.parametrize("target", ["victim", "nowhere"])
def test_replaces_a_symlink_at_the_lock_file_without_following_it(
    tmp_path: Path, folder: int, target: str
) -> None:
    (tmp_path / "victim").write_bytes(OLD)
    (tmp_path / "lock").symlink_to(tmp_path / target)

    assert TargetLock().try_acquire("lock", folder)

    assert (tmp_path / "victim").read_bytes() == OLD
    assert {"lock", "victim"} == set(os.listdir(tmp_path))
    assert not (tmp_path / "lock").is_symlink()
