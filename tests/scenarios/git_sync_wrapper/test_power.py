"""
The power goes around the flip: what the link shows is whole afterwards, the old or the new.

Nothing of a process is left then, and of the files what the disk had.
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
from tests.support.git_sync import GitSite
from tests.support.revisions import Flaw, read_revision
from tests.support.scripts import script
from tests.support.volumes import disk, power_cut
from tests.support.waiting import wait_until

DISK_MIB = 32
LONGEST_PAUSE_SECONDS = 0.06


def revision(root: Path) -> int:
    """The revision that a root shows, all of it."""
    return read_revision(os.path.realpath(root / "repo", strict=True))


def wait_for_revision(number: int, root: Path) -> None:
    wait_until(lambda: number == revision(root), f"{root} shows revision {number}", 60)


def commit_journal(volume: Path) -> None:
    """What ext4 does by itself within five seconds: names reach the disk, without contents."""
    with (volume / "other").open("w") as file:
        os.fsync(file.fileno())


@contextmanager
def after_power_cut(
    here: GitSite, folder: Path, wrapper: SidecarProcess, **settings: str
) -> Iterator[tuple[Path, SidecarProcess]]:
    """Yield what the disk has of the root, and what is to start on it, which is killed."""
    with power_cut(wrapper, folder) as left:
        root = left / "root"
        after = here.describe(GITSYNC_ROOT=str(root), **settings)
        try:
            yield root, after
        except AssertionError:
            print(*after.events, sep="\n")
            raise
        finally:
            if after.is_running():
                after.terminate()  # with every git, or the disk stays in use


@pytest.mark.timeout(3_600)
def test_a_power_cut_at_any_moment_around_the_flip_leaves_a_whole_commit(
    counts: Counts, tmp_path: Path, here: GitSite
) -> None:
    chance = random.Random(5)
    hooked = tmp_path / "hooked"
    hook = script(tmp_path / "hook", f"touch {hooked}")
    with disk(tmp_path, DISK_MIB) as volume:
        root = volume / "root"
        wrapper = here.wrapper(GITSYNC_ROOT=str(root), GITSYNC_PRE_PUBLISH_EXECHOOK_COMMAND=hook)
        wrapper.wait_until_ready()
        for number in range(2, 2 + counts.power_cuts):
            hooked.unlink(missing_ok=True)
            here.commit_revision(number)
            wait_until(hooked.exists, "the link is about to turn")
            # The one place where time itself is what is tested.
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


def test_unflushed_a_power_cut_may_empty_what_is_shown_which_is_never_ready(
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
