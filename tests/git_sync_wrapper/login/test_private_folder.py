"""
The folder of the socket: private, and removed even after a kill.
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

from git_sync_wrapper.login.private_folder import LOCK, PrivateFolder, claim


def test_only_the_owner_can_enter(temporary: Path) -> None:
    folder = PrivateFolder()

    found = os.stat(folder.path)
    assert (0o700, os.getuid()) == (stat.S_IMODE(found.st_mode), found.st_uid)
    assert temporary == Path(folder.path).parent
    folder.remove()


def test_removal_leaves_no_files_and_no_open_descriptors(temporary: Path) -> None:
    """Descriptors are counted in a separate process, where no other thread opens any."""
    program = (
        "import os\n"
        "from git_sync_wrapper.login.private_folder import PrivateFolder\n"
        "before = os.listdir('/proc/self/fd')\n"
        "folder = PrivateFolder()\n"
        "open(folder.path + '/key', 'w').close()\n"
        "folder.remove()\n"
        "assert before == os.listdir('/proc/self/fd')\n"
    )

    assert 0 == subprocess.run([sys.executable, "-c", program], timeout=60).returncode
    assert [] == list(temporary.iterdir())


def test_removes_the_folder_of_a_killed_process(temporary: Path) -> None:
    program = (
        "import os, signal\n"
        "from git_sync_wrapper.login.private_folder import PrivateFolder\n"
        "open(PrivateFolder().path + '/key', 'w').write('secret')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", program], timeout=60)
    (left,) = temporary.iterdir()

    folder = PrivateFolder()

    assert not left.exists()
    folder.remove()


def test_keeps_folders_in_use_and_files_of_other_programs(temporary: Path) -> None:
    one = PrivateFolder()
    (temporary / "git-sync-wrapper-notes").mkdir()
    (temporary / "git-sync-wrapper.txt").touch()

    other = PrivateFolder()

    assert {one.path, other.path} < set(map(str, temporary.iterdir()))
    assert 4 == len(list(temporary.iterdir()))
    one.remove()
    other.remove()


@pytest.mark.parametrize("unusable", ["nothing", "long/" * 13])
def test_uses_another_place_if_the_first_is_unusable(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, unusable: str
) -> None:
    """A read-only root has no writable /tmp; a socket's path has at most 107 bytes."""
    (temporary / "long" / ("long/" * 12)).mkdir(parents=True)
    monkeypatch.setenv("TMPDIR", str(temporary / unusable))

    folder = PrivateFolder((str(temporary / "neither"), str(temporary)))

    assert temporary == Path(folder.path).parent
    folder.remove()


def test_does_not_claim_a_folder_that_another_process_is_removing(temporary: Path) -> None:
    """It existed, but was not locked yet, when the other process looked for leftovers."""
    folder = temporary / "new"
    folder.mkdir()
    with (folder / LOCK).open("w") as lock, ThreadPoolExecutor(1) as pool:
        fcntl.flock(lock, fcntl.LOCK_EX)
        claimed = pool.submit(claim, str(folder))
        shutil.rmtree(folder)
        fcntl.flock(lock, fcntl.LOCK_UN)

        assert claimed.result(60) is None
