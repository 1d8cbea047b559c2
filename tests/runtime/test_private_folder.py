"""
The private folder: only the owner can enter it, and it is removed even after a kill.
"""

import fcntl
import os
import shutil
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sidecar_runtime.child import LOCK, PrivateFolder, claim


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """The folder of a killed process."""
    program = (
        "import os, signal, sys\n"
        "from sidecar_runtime.child import PrivateFolder\n"
        "open(PrivateFolder('box-', sys.argv[1]).path + '/key', 'w').write('secret')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", program, tmp_path], timeout=60)
    (left,) = tmp_path.iterdir()
    assert "secret" == (left / "key").read_text()
    return left


def test_only_the_owner_can_enter(tmp_path: Path) -> None:
    folder = PrivateFolder("box-", str(tmp_path))

    found = os.stat(folder.path)
    assert (0o700, os.getuid()) == (stat.S_IMODE(found.st_mode), found.st_uid)
    assert tmp_path == Path(folder.path).parent
    folder.remove()


def test_removes_the_folder_of_a_killed_process(tmp_path: Path, left: Path) -> None:
    folder = PrivateFolder("box-", str(tmp_path))

    assert not left.exists()
    folder.remove()


def test_keeps_the_folder_of_another_user(
    tmp_path: Path, left: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever owns a folder could lead its removal to another place."""
    another = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: another)

    folder = PrivateFolder("box-", str(tmp_path))

    assert (left / "key").exists()
    folder.remove()


def test_keeps_folders_in_use_and_files_of_other_programs(tmp_path: Path) -> None:
    one = PrivateFolder("box-", str(tmp_path))
    (tmp_path / "box-notes").mkdir()
    (tmp_path / "box.txt").touch()

    other = PrivateFolder("box-", str(tmp_path))

    assert {one.path, other.path} < set(map(str, tmp_path.iterdir()))
    assert 4 == len(list(tmp_path.iterdir()))
    one.remove()
    other.remove()


def test_does_not_claim_a_folder_that_another_process_is_removing(tmp_path: Path) -> None:
    """It existed, but was not locked yet, when the other process looked for leftovers."""
    folder = tmp_path / "new"
    folder.mkdir()
    with (folder / LOCK).open("w") as lock, ThreadPoolExecutor(1) as pool:
        fcntl.flock(lock, fcntl.LOCK_EX)
        claimed = pool.submit(claim, str(folder))
        shutil.rmtree(folder)
        fcntl.flock(lock, fcntl.LOCK_UN)

        assert claimed.result(60) is None
