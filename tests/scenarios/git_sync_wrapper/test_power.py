"""
Power cuts around the link swap: the disk then has a whole commit, the old or the new
one.
"""

import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import Counts
from tests.support.daemon import SidecarProcess
from tests.support.git.git_sync import GitSite
from tests.support.machine.volumes import disk, power_cut
from tests.support.revisions import Flaw, read_revision
from tests.support.scripts import script
from tests.support.waiting import wait_until

DISK_MIB = 32
LONGEST_PAUSE_SECONDS = 0.06


def revision(root: Path) -> int:
    """Return the revision that a root publishes, after reading all of it."""
    return read_revision(os.path.realpath(root / "repo", strict=True))


def wait_for_revision(number: int, root: Path) -> None:
    wait_until(lambda: number == revision(root), f"{root} shows revision {number}")


def commit_journal(volume: Path) -> None:
    """
    Write names without contents to the disk, as ext4 does on its own within five
    seconds.
    """
    with (volume / "other").open("w") as file:
        os.fsync(file.fileno())


@contextmanager
def after_power_cut(
    here: GitSite, folder: Path, wrapper: SidecarProcess
) -> Iterator[tuple[Path, SidecarProcess]]:
    """
    Yield the root as the disk has it, and a wrapper for it; stop that wrapper at the
    end.
    """
    with power_cut(wrapper, folder) as left:
        root = left / "root"
        after = here.describe(GITSYNC_ROOT=str(root))
        try:
            yield root, after
        finally:
            if after.is_running():
                after.terminate()  # with every git; otherwise the disk stays in use


@pytest.mark.timeout(3_600)
def test_a_power_cut_around_the_link_swap_leaves_a_whole_commit(
    counts: Counts, tmp_path: Path, here: GitSite
) -> None:
    chance = random.Random(5)
    judged = tmp_path / "judged"
    gate = script(tmp_path / "gate", f"touch {judged}")
    with disk(tmp_path, DISK_MIB) as volume:
        root = volume / "root"
        wrapper = here.wrapper(
            GITSYNC_ROOT=str(root),
            GIT_SYNC_WRAPPER_GATE="command",
            GIT_SYNC_WRAPPER_GATE_COMMAND=gate,
        )
        wrapper.wait_until_ready()
        for number in range(2, 2 + counts.power_cuts):
            judged.unlink(missing_ok=True)
            here.commit_revision(number)
            wait_until(judged.exists, "the link is about to turn")
            # A sleep is correct here: the moment of the cut is what is tested.
            time.sleep(chance.uniform(0, LONGEST_PAUSE_SECONDS))
            if chance.random() < 0.5:
                commit_journal(volume)
            with after_power_cut(here, tmp_path, wrapper) as (left, after):
                shown = revision(left)
                assert number - 1 <= shown <= number
                after.start().wait_until_ready()
                assert shown <= revision(left) <= number
                wait_for_revision(number, left)
            wait_for_revision(number, root)


def test_without_fsync_a_power_cut_can_lose_files_but_never_reports_ready(
    tmp_path: Path, here: GitSite
) -> None:
    with disk(tmp_path, DISK_MIB) as volume:
        root = volume / "root"
        wrapper = here.wrapper(GITSYNC_ROOT=str(root), GIT_SYNC_WRAPPER_FSYNC="false")
        wrapper.wait_until_ready()
        assert 1 == revision(root)
        commit_journal(volume)
        with after_power_cut(here, tmp_path, wrapper) as (left, after):
            with pytest.raises((Flaw, OSError, ValueError)):
                revision(left)
            here.server.stop()
            after.start().wait_for_event("cycle_failed")
            assert 503 == after.get("/readyz").status
            here.server.start()
            after.wait_until_ready(30)
            assert 1 == revision(left)
