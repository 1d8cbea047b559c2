"""
Atomic writes, safe reads, and the lock that allows one publisher at a time.
"""

import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sidecar_runtime.volume.files import (
    FACTS_BYTES,
    TargetLock,
    find_holder,
    read_file,
    read_holder,
    write_file,
)
from tests.support.machine.descriptors import held
from tests.support.machine.volumes import full_disk
from tests.support.waiting import wait_until

OLD, NEW = b"old content", b"new content, which is longer"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


# --- write_file


@pytest.mark.parametrize("fsync", [False, True])
def test_writes_a_file_with_its_mode_regardless_of_the_umask(tmp_path: Path, fsync: bool) -> None:
    before = os.umask(0o077)
    try:
        write_file(tmp_path / "file", NEW, 0o664, fsync=fsync)
    finally:
        os.umask(before)

    assert (tmp_path / "file").read_bytes() == NEW
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o664
    assert os.listdir(tmp_path) == ["file"]


def test_replaces_the_temporary_file_of_a_killed_predecessor(tmp_path: Path) -> None:
    (tmp_path / ".file.new").write_bytes(b"half")
    (tmp_path / ".file.new").chmod(0o400)

    write_file(tmp_path / "file", NEW, 0o644, fsync=False)

    assert (tmp_path / "file").read_bytes() == NEW
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("name", [".file.new", "file"], ids=["temporary", "itself"])
def test_replaces_a_symlink_without_following_it(tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(OLD)
    (tmp_path / name).symlink_to(victim)

    write_file(tmp_path / "file", NEW, 0o644, fsync=False)

    assert victim.read_bytes() == OLD
    assert (tmp_path / "file").read_bytes() == NEW
    assert not (tmp_path / "file").is_symlink()


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


HOLDER = """
import os, sys
from sidecar_runtime.volume.files import TargetLock
folder = os.open(sys.argv[1], os.O_RDONLY)
print(TargetLock().try_acquire("lock", folder), flush=True)
sys.stdin.read()
"""


@contextmanager
def another_process(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run another process that holds the lock until the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER.replace("TargetLock()", "(lock := TargetLock())"), folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == b"True\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_the_first_lock_holder_stays_it_until_it_releases(folder: int) -> None:
    first, second = TargetLock(), TargetLock()

    assert [True, True] == [first.try_acquire("lock", folder) for _ in range(2)]
    assert [False, False] == [second.try_acquire("lock", folder) for _ in range(2)]
    first.release()
    assert second.try_acquire("lock", folder)
    assert not first.try_acquire("lock", folder)


def test_the_lock_file_describes_the_holder_even_after_a_standby_tries(
    tmp_path: Path, folder: int
) -> None:
    with another_process(tmp_path) as process:
        holder = read_holder("lock", folder)

        assert (process.pid, socket.gethostname()) == (holder["pid"], holder["host"])
        assert holder["since"] > 1_700_000_000
        assert not TargetLock().try_acquire("lock", folder)
        assert holder == read_holder("lock", folder)


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


def test_no_child_inherits_the_lock(folder: int) -> None:
    lock = TargetLock()
    assert lock.try_acquire("lock", folder)
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"],
        stdin=subprocess.PIPE,
        close_fds=False,
    ) as child:
        lock.release()

        # The kernel closes the descriptors a moment after the exec.
        wait_until(lambda: TargetLock().try_acquire("lock", folder), "the lock is free")
        child.communicate()


def test_read_holder_returns_only_known_and_valid_facts(tmp_path: Path, folder: int) -> None:
    facts = {"host": "h" * 1000 + "\ud800", "pid": "<b>", "since": 5, "password": "hunter2"}
    (tmp_path / "lock").write_text(json.dumps(facts))

    assert read_holder("lock", folder) == {"host": "h" * 253, "since": 5}


def test_find_holder_returns_the_holder_and_creates_no_file(tmp_path: Path, folder: int) -> None:
    assert find_holder("lock", str(tmp_path)) == {}
    assert find_holder("lock", str(tmp_path / "missing")) == {}
    assert [] == os.listdir(tmp_path)

    lock = TargetLock()
    assert lock.try_acquire("lock", folder)
    assert os.getpid() == find_holder("lock", str(tmp_path))["pid"]

    lock.release()
    assert find_holder("lock", str(tmp_path)) == {}
