"""The wrapper survives the situations that break git-sync alone."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Counts
from tests.support.git.git_sync import GitSite, corrupt
from tests.support.http.faults import hang
from tests.support.machine.volumes import small_volume


def shallow_lock(root: Path) -> None:
    """Create the lock that a killed `git fetch` leaves."""
    (root / ".git/shallow.lock").touch()


def index_lock(root: Path) -> None:
    """Create the lock that a killed checkout leaves, in every worktree."""
    for worktree in (root / ".git/worktrees").iterdir():
        (worktree / "index.lock").touch()


def used_bytes(folder: Path) -> int:
    """Return the disk usage below a folder; a file with several names counts once."""
    found = [path.lstat() for path in folder.rglob("*")]
    return sum({status.st_ino: status.st_blocks * 512 for status in found}.values())


def times(tree: Path) -> set[tuple[Path, int]]:
    """Return the modules in a tree with their times."""
    return {(path, path.stat().st_mtime_ns) for path in tree.rglob("*.py")}


@pytest.mark.parametrize("spoil", [shallow_lock, index_lock, corrupt])
def test_keeps_dags_that_git_sync_would_wipe_while_the_remote_is_down(
    here: GitSite, spoil: Callable[[Path], None]
) -> None:
    """
    No failure ends the wrapper either, because an earlier process has published a
    commit. A lock costs no fresh clone.
    """
    here.publish().kill()
    work_folder = here.root / ".git-sync"
    repository = (work_folder / ".git").stat().st_ino
    spoil(work_folder)
    before = here.shown()
    here.server.stop()
    wrapper = here.wrapper(GITSYNC_MAX_FAILURES="0")
    for _ in range(2):
        wrapper.wait_for_event("cycle_failed", after=len(wrapper.events))

    assert before == here.shown()
    assert 200 == wrapper.get("/readyz").status

    here.server.start()
    here.wait_until_shown(here.commit_revision(2), wrapper)
    if spoil != corrupt:
        assert repository == (work_folder / ".git").stat().st_ino


def test_takes_over_the_root_of_plain_git_sync(here: GitSite) -> None:
    """
    A migration: the same volume, another image; link and foreign files stay meanwhile.
    """
    plain = here.plain()
    here.wait_until_shown(here.repository.head(), plain)
    plain.kill()
    (here.root / "lost+found").mkdir()
    (here.root / "notes.txt").write_text("mine")
    here.server.stop()
    wrapper = here.wrapper()
    wrapper.wait_for_event("cycle_failed")

    assert here.repository.head() == here.shown()

    here.server.start()
    here.wait_until_shown(here.commit_revision(2), wrapper)
    assert (here.root / "lost+found").is_dir()
    assert "mine" == (here.root / "notes.txt").read_text()


def test_recovers_from_a_full_disk_once_the_repository_shrinks(here: GitSite) -> None:
    with small_volume(here.root, "4m,nr_inodes=500"):
        wrapper = here.publish()
        before = here.shown()
        here.repository.commit({"big.bin": os.urandom(3_000_000)})
        wrapper.wait_for_event("cycle_failed", reason="target_full")
        wrapper.wait_for_event("cycle_failed", 60, after=len(wrapper.events))
        assert 1 == len(wrapper.find_events("repository_removed", level="info"))
        assert before == here.shown()

        here.wait_until_shown(here.repository.commit({"big.bin": None}), wrapper)
        wrapper.kill()
        before = here.shown()
        here.link.unlink()
        subprocess.run("seq 500 | xargs touch", shell=True, cwd=here.root)

        here.wait_until_shown(before, wrapper.start())
        wrapper.kill()


def test_a_server_that_never_answers_is_named_while_git_asks_it(here: GitSite) -> None:
    wrapper = here.publish()
    here.server.inject(hang())
    slow = wrapper.wait_for_event("cycle_slow")

    assert slow["error"].endswith(
        f"Z it waits for git ls-remote of {here.server.url()}"
    )
    assert slow["error"] == wrapper.status()["error"]


@pytest.fixture
def a_megabyte(request: pytest.FixtureRequest) -> int:
    """
    A megabyte in bytes; without `--full` a quarter of it, because only proportions
    matter.
    """
    return 1_000_000 if request.config.getoption("--full") else 250_000


@pytest.mark.timeout(3_600)
def test_publishes_every_commit_on_a_volume_that_fits_only_a_few(
    here: GitSite, counts: Counts, a_megabyte: int
) -> None:
    """Commits share no files: each needs 8 MB to fetch and 8 MB to check out."""
    with small_volume(here.root, str(60 * a_megabyte)):
        wrapper = here.publish()
        for _ in range(counts.commits):
            files = {
                f"data/{number}.bin": os.urandom(a_megabyte) for number in range(8)
            }
            here.wait_until_shown(here.repository.commit(files), wrapper, 120)
        wrapper.kill()

    assert [] == wrapper.find_events("cycle_failed"), wrapper.log()
    assert wrapper.find_events("snapshot_dropped")


def test_keeps_replaced_commits_on_a_volume_that_fits_no_second_whole_one(
    here: GitSite, a_megabyte: int
) -> None:
    here.repository.commit(
        {f"data/{number}.bin": os.urandom(a_megabyte) for number in range(8)},
        whole=True,
    )
    with small_volume(here.root, str(30 * a_megabyte)):
        wrapper = here.publish()
        for _ in range(2):
            changed = {"data/0.bin": os.urandom(a_megabyte)}
            here.wait_until_shown(here.repository.commit(changed), wrapper)
        wrapper.kill()

    assert [] == wrapper.find_events("snapshot_dropped"), wrapper.log()


def test_a_commit_changes_disk_usage_and_mtimes_only_for_changed_files(
    here: GitSite, a_megabyte: int
) -> None:
    here.repository.commit(
        {
            **{
                f"pkg{number % 20}/m{number}.py": f"m = {number}\n"
                for number in range(1_000)
            },
            **{f"data/{number}.bin": os.urandom(a_megabyte) for number in range(16)},
        },
        whole=True,
    )
    wrapper = here.publish(GIT_SYNC_WRAPPER_RETAIN_COUNT="10")
    for number in range(10):
        commit = here.repository.commit({"pkg1/m1.py": f"m = -{number}\n"})
        # the checkout is empty again
        wrapper.wait_for_event("cycle_finished", revision=commit)
        if number == 0:
            before = times(here.link)
            used = used_bytes(here.root)

    assert [here.link / "pkg1/m1.py"] == [path for path, _ in times(here.link) - before]
    kept = here.root / ".snapshots"
    assert 11 == len([path for path in kept.iterdir() if path.is_dir()])
    # Directory entries and git objects, but no second copy of unchanged files.
    assert used_bytes(kept) - used_bytes(here.link.resolve()) < 16 * a_megabyte
    assert used_bytes(here.root) - used < 16 * a_megabyte


def test_refuses_a_commit_whose_symlinked_module_has_a_syntax_error(
    here: GitSite,
) -> None:
    here.repository.commit({"dag.py": "x = 1\n", "dag.txt": "x = 1\n"}, whole=True)
    here.repository.commit({"linked.py": "dag.txt"}, modes={"linked.py": "120000"})
    wrapper = here.publish(GIT_SYNC_WRAPPER_GATE="syntax")
    before = here.shown()

    here.repository.commit({"dag.txt": "def ("})

    assert "linked.py" == wrapper.wait_for_event("revision_refused")["path"]
    assert before == here.shown()
