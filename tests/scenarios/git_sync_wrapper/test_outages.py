"""
The outages of git-sync, through the wrapper: what it does alone does not happen here.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Counts
from tests.scenarios.git_sync_wrapper.situations import (
    corrupt,
    damage_link,
    index_lock,
    is_pack,
    shallow_lock,
    tmp_link,
)
from tests.support.faults import hang
from tests.support.git_sync import GitSite
from tests.support.volumes import small_volume
from tests.support.waiting import wait_until


def private_root(here: GitSite) -> Path:
    """The repository that git-sync has under the wrapper."""
    return here.root / ".git-sync"


def used_bytes(folder: Path) -> int:
    """What all that is below a folder takes up; a file with several names counts once."""
    found = [path.lstat() for path in folder.rglob("*")]
    return sum({status.st_ino: status.st_blocks * 512 for status in found}.values())


@pytest.mark.parametrize("spoil", [shallow_lock, corrupt])
def test_dags_stay_when_git_sync_would_wipe_them_and_the_remote_is_down(
    here: GitSite, spoil: Callable[[Path], None]
) -> None:
    """No failure ends it either: something is published, though this process did not do it."""
    here.publish().kill()
    spoil(private_root(here))
    before = here.shown()
    here.server.stop()
    wrapper = here.wrapper(GITSYNC_MAX_FAILURES="0")
    for _ in range(2):
        wrapper.wait_for_event("cycle_failed", after=len(wrapper.events))

    assert before == here.shown()
    assert 200 == wrapper.get("/readyz").status

    here.server.start()
    here.wait_until_shown(here.commit_revision(2), wrapper)


def test_foreign_files_in_the_root_stay(here: GitSite) -> None:
    (here.root / "lost+found").mkdir(parents=True)
    (here.root / "notes.txt").write_text("mine")
    (here.root / "tmp-link").symlink_to("nowhere")  # of whoever was there before

    wrapper = here.publish()
    here.wait_until_shown(here.commit_revision(2), wrapper)

    assert (here.root / "lost+found").is_dir()
    assert "mine" == (here.root / "notes.txt").read_text()


@pytest.mark.parametrize(
    ("when", "spoil"),
    [("before a start", tmp_link), ("while it runs", index_lock), ("while it runs", damage_link)],
)
def test_leftover_is_repaired(here: GitSite, spoil: Callable[[Path], None], when: str) -> None:
    wrapper = here.publish()
    if when == "before a start":
        wrapper.kill()
    spoil(private_root(here))
    repository = (private_root(here) / ".git").stat().st_ino
    if when == "before a start":
        wrapper.start()
        wrapper.wait_until_synced()  # a SIGHUP before its first cycle asks for nothing more
    # git-sync is run for the commit that it has, and for the next one.
    assert "cycle_finished" == wrapper.sync()["event"], wrapper.log()
    here.wait_until_shown(here.commit_revision(2), wrapper)

    assert [] == wrapper.find_events("cycle_failed"), wrapper.log()
    assert repository == (private_root(here) / ".git").stat().st_ino, "it was not thrown away"


def test_root_of_plain_git_sync_is_taken_over(here: GitSite) -> None:
    """The migration: the same volume, another image; the link never shows nothing."""
    plain = here.plain()
    here.wait_until_shown(here.repository.head(), plain)
    plain.kill()
    here.server.stop()
    wrapper = here.wrapper()
    wrapper.wait_for_event("cycle_failed")

    assert here.repository.head() == here.shown()

    here.server.start()
    commit = here.commit_revision(2)
    here.wait_until_shown(commit, wrapper)


def test_full_disk_heals_as_soon_as_the_repository_has_shrunk(here: GitSite) -> None:
    with small_volume(here.root, "4m"):
        wrapper = here.publish()
        before = here.shown()
        here.repository.commit({"big.bin": os.urandom(3_000_000)})
        failed = wrapper.wait_for_event("cycle_failed")
        assert before == here.shown()
        assert "target_full" == failed["reason"], wrapper.log()
        commit = here.repository.commit({"big.bin": None})

        here.wait_until_shown(commit, wrapper)
        wrapper.kill()


@pytest.fixture
def a_megabyte(request: pytest.FixtureRequest) -> int:
    """In bytes; without `--full` a fourth of it will do where only proportions count."""
    return 1_000_000 if request.config.getoption("--full") else 250_000


@pytest.mark.timeout(3_600)
def test_every_commit_arrives_on_a_volume_that_holds_a_few_of_them(
    here: GitSite, counts: Counts, a_megabyte: int
) -> None:
    """Each of them is new as a whole: 8 MB to fetch, 8 MB to check out, and nothing shared."""
    with small_volume(here.root, str(60 * a_megabyte)):
        wrapper = here.publish()
        for _ in range(counts.commits):
            files = {f"data/{number}.bin": os.urandom(a_megabyte) for number in range(8)}
            here.wait_until_shown(here.repository.commit(files), wrapper, 120)
        wrapper.kill()

    assert [] == wrapper.find_events("cycle_failed"), wrapper.log()
    assert wrapper.find_events("snapshot_dropped")


def test_commits_cost_what_has_changed_in_disk_and_times(here: GitSite, a_megabyte: int) -> None:
    files = {f"pkg{number % 20}/m{number}.py": f"m = {number}\n" for number in range(1_000)}
    data = {f"data/{number}.bin": os.urandom(a_megabyte) for number in range(16)}
    here.repository.commit({**files, **data}, whole=True)
    wrapper = here.publish(GIT_SYNC_WRAPPER_RETAIN_COUNT="10")
    for number in range(10):
        commit = here.repository.commit({"pkg1/m1.py": f"m = -{number}\n"})
        here.wait_until_shown(commit, wrapper)
        if number == 0:  # from now on with the checkouts of two commits, as git-sync keeps them
            before = {path: path.stat().st_mtime_ns for path in here.link.rglob("*.py")}
            used = used_bytes(here.root)

    after = {path: path.stat().st_mtime_ns for path in here.link.rglob("*.py")}
    assert [here.link / "pkg1/m1.py"] == [path for path in before if before[path] != after[path]]
    kept = here.root / ".snapshots"
    assert 11 == len([path for path in kept.iterdir() if path.is_dir()])
    assert used_bytes(kept) - used_bytes(here.link.resolve()) < 2_000_000
    # Names, what git keeps of each commit, and not even once what has not changed.
    assert used_bytes(here.root) - used < 4_000_000


def test_a_commit_that_is_broken_through_a_link_is_held(here: GitSite) -> None:
    here.repository.commit({"dag.py": "x = 1\n", "dag.txt": "x = 1\n"}, whole=True)
    here.repository.commit({"linked.py": "dag.txt"}, modes={"linked.py": "120000"})
    wrapper = here.publish(GIT_SYNC_WRAPPER_GATE="syntax")
    before = here.shown()

    here.repository.commit({"dag.txt": "def ("})

    assert "linked.py" == wrapper.wait_for_event("revision_refused")["path"]
    assert before == here.shown()


def test_sigkill_in_the_midst_of_a_fetch_leaves_nothing_that_hinders(here: GitSite) -> None:
    here.repository.commit({"big.bin": os.urandom(300_000)})
    here.server.inject(hang(after=200_000), is_pack, times=1)
    wrapper = here.wrapper()
    wait_until((private_root(here) / ".git/shallow.lock").exists, "it is in the midst")
    wrapper.kill()
    here.server.release()
    wrapper.start()

    here.wait_until_shown(here.repository.head(), wrapper)


def test_hash_as_ref_is_published_and_a_signal_is_heard(here: GitSite) -> None:
    commit = here.repository.head()
    here.commit_revision(2)
    wrapper = here.wrapper(GITSYNC_REF=commit)
    here.wait_until_shown(commit, wrapper)

    event = wrapper.sync()

    assert "cycle_finished" == event["event"]
    assert 0 == wrapper.terminate().code
