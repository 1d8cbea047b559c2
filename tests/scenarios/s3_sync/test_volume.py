"""
The volume is full, read-only or somebody else's: what was published stays, the cause is named.

Small volumes of their own need root; elsewhere these tests are skipped.
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenarios.s3_sync.conftest import StartDaemon
from tests.support import daemon as daemon_module
from tests.support.daemon import S3_SYNC
from tests.support.fake_s3 import FakeS3
from tests.support.scripted import FILES, published

MIB = 1 << 20
READ_ONLY = "-all,+dac_read_search"
"""
No capability but one: the interpreter may be in root's home.
"""


def mount(*arguments: str) -> bool:
    """
    Run `mount`; False where that is not allowed.
    """
    return subprocess.run(["mount", *arguments], capture_output=True).returncode == 0


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """
    A volume of 1 MiB.
    """
    path = tmp_path / "volume"
    path.mkdir()
    if os.getuid() != 0 or not mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)):
        pytest.skip("mounting a volume needs root")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill_up(path: Path) -> None:
    """
    Write a file until the volume has no room left.
    """
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass


def staged(target: Path) -> list[Path]:
    """
    Downloads that were left behind.
    """
    return [path for path in (target / ".s3-sync" / "staging").rglob("*") if path.is_file()]


@pytest.mark.parametrize("size", [800_000, 5 * MIB], ids=["held in memory", "staged on disk"])
def test_a_full_volume_keeps_what_is_published_and_recovers(
    s3: FakeS3, volume: Path, start: StartDaemon, size: int
) -> None:
    daemon = start(s3, volume / "dags")
    daemon.wait_until_synced()
    (volume / "foreign.bin").write_bytes(bytes(MIB // 2))
    s3.put("dags/a.py", b"changed, but there is no room for all")
    s3.put("dags/big.bin", os.urandom(size))

    failed = daemon.sync()

    assert failed["reason"] == "target_full", failed
    assert str(volume) in failed["error"]
    assert "sizeLimit" in failed["advice"]
    files = published(volume / "dags")
    assert "big.bin" not in files
    assert files["pkg/b.py"] == FILES["pkg/b.py"]
    assert files["a.py"] in (FILES["a.py"], s3.objects["dags/a.py"].body)
    assert staged(volume / "dags") == []
    assert daemon.get("/readyz").status == 200
    assert daemon.get("/readyz").json()["reason"] == "target_full"
    s3.delete("dags/big.bin")
    assert daemon.sync()["event"] == "cycle_finished"
    assert published(volume / "dags")["a.py"] == s3.objects["dags/a.py"].body


def test_a_volume_without_a_free_byte_is_survived(
    s3: FakeS3, volume: Path, start: StartDaemon
) -> None:
    """
    Not even the list of managed files can grow.
    """
    daemon = start(s3, volume / "dags")
    daemon.wait_until_synced()
    fill_up(volume / "foreign.bin")
    for number in range(60):
        s3.put(f"dags/many/a_file_with_a_long_name_{number:050d}.py", b"x" * 100)

    assert daemon.sync()["reason"] == "target_full"

    assert published(volume / "dags").items() >= FILES.items()
    assert daemon.get("/healthz").status == 200
    (volume / "foreign.bin").unlink()
    ended = daemon.sync()
    assert ended["event"] == "cycle_finished", ended
    assert len(published(volume / "dags")) == len(FILES) + 60
    daemon.terminate()
    assert daemon.start().wait_until_synced()["result"] == "unchanged"


def test_a_full_volume_at_first_start_is_named(
    s3: FakeS3, volume: Path, start: StartDaemon
) -> None:
    s3.put("dags/big.bin", os.urandom(2 * MIB))
    daemon = start(s3, volume / "dags")

    assert daemon.wait_for_event("cycle_failed")["reason"] == "target_full"
    assert daemon.get("/readyz").status == 503


def test_a_volume_that_turns_read_only_is_named_and_recovers(
    s3: FakeS3, volume: Path, start: StartDaemon
) -> None:
    daemon = start(s3, volume / "dags")
    daemon.wait_until_synced()
    assert daemon.terminate().code == 0
    assert mount("-o", "remount,ro", str(volume))
    s3.put("dags/a.py", b"changed")

    daemon.start()
    failed = daemon.wait_for_event("cycle_failed")

    assert failed["reason"] == "target_denied"
    assert failed["advice"]
    assert published(volume / "dags") == FILES
    assert mount("-o", "remount,rw", str(volume))
    assert daemon.sync()["event"] == "cycle_finished"
    assert published(volume / "dags")["a.py"] == b"changed"


@pytest.fixture
def as_nobody(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """
    Let daemons run as uid 50000, gid 0; a folder that this user can reach, owned by root.
    """
    setpriv = shutil.which("setpriv")
    if os.getuid() != 0 or setpriv is None:
        pytest.skip("another user needs root")
    folder = Path(tempfile.mkdtemp(prefix="s3-sync-", dir="/tmp"))
    folder.chmod(0o755)
    wrapper = folder / "s3-sync"
    wrapper.write_text(
        f"#!/bin/sh\nexec {setpriv} --reuid=50000 --regid=0 --clear-groups --inh-caps={READ_ONLY} "
        f'--ambient-caps={READ_ONLY} --bounding-set={READ_ONLY} {S3_SYNC} "$@"\n'
    )
    wrapper.chmod(0o755)
    monkeypatch.setattr(daemon_module, "S3_SYNC", wrapper)
    yield folder
    shutil.rmtree(folder)


def test_another_user_publishes_into_a_folder_of_its_group(
    s3: FakeS3, as_nobody: Path, start: StartDaemon
) -> None:
    target = as_nobody / "dags"
    target.mkdir()
    target.chmod(0o775)
    daemon = start(s3, target)

    daemon.wait_until_synced()

    assert published(target) == FILES
    assert (target / "a.py").stat().st_uid == 50000
    s3.delete("dags/pkg/b.py")
    assert daemon.sync()["files_deleted"] == 1


def test_a_folder_of_somebody_else_is_named_with_the_user(
    s3: FakeS3, as_nobody: Path, start: StartDaemon
) -> None:
    target = as_nobody / "dags"
    target.mkdir()
    target.chmod(0o755)
    daemon = start(s3, target)

    failed = daemon.wait_for_event("cycle_failed")

    assert failed["reason"] == "target_denied"
    assert str(target) in failed["error"]
    assert "50000" in failed["error"]
    assert "fsGroup" in failed["advice"]
    assert daemon.get("/healthz").status == 200
    target.chmod(0o775)
    ended = daemon.sync()
    assert ended["event"] == "cycle_finished", ended


def test_check_names_the_user_that_may_not_write(
    s3: FakeS3, as_nobody: Path, start: StartDaemon
) -> None:
    target = as_nobody / "dags"
    target.mkdir()
    target.chmod(0o755)
    daemon = start(s3, target, arguments=("check",))

    assert daemon.wait_for_exit(20).code == 3
    assert "50000" in daemon.log()
    assert "target_denied" in daemon.log()
