"""
Which older commits are kept, and which are removed to make room.
"""

import os
from pathlib import Path

import pytest

from sidecar_runtime.health import Outcome
from tests.git_sync_wrapper.cycling import FOUR, ONE, THREE, TWO, Start
from tests.runtime.recording import Log
from tests.support.machine.volumes import small_volume
from tests.support.scripts import script


def test_keeps_an_older_commit_as_long_as_git_sync_would(start: Start) -> None:
    nothing_stays = {"GIT_SYNC_WRAPPER_RETAIN_COUNT": "0", "GIT_SYNC_WRAPPER_RETAIN_FOR": "0s"}
    wrapper = start(GITSYNC_STALE_WORKTREE_TIMEOUT="1h", **nothing_stays)
    for name in (ONE, TWO, TWO):
        wrapper.follow(name)

    assert {ONE, TWO} <= set(os.listdir(wrapper.root / ".snapshots"))


@pytest.mark.parametrize("is_down", [False, True])
def test_removes_an_expired_commit_even_without_a_new_one(start: Start, is_down: bool) -> None:
    wrapper = start.published(GIT_SYNC_WRAPPER_RETAIN_COUNT="0", GIT_SYNC_WRAPPER_RETAIN_FOR="10m")
    wrapper.follow(TWO)
    assert {ONE, TWO} == wrapper.kept()
    os.utime(wrapper.root / ".snapshots" / ONE, (0, 0))
    if is_down:
        wrapper.lose_remote()
        wrapper.failure()
    else:
        wrapper.cycle()

    assert {TWO} == wrapper.kept()


def test_removes_no_commit_while_none_is_published(start: Start) -> None:
    wrapper = start.published(GIT_SYNC_WRAPPER_RETAIN_COUNT="0", GIT_SYNC_WRAPPER_RETAIN_FOR="0s")
    (wrapper.root / "repo").unlink()
    (wrapper.root / ".snapshots/published.json").unlink()
    wrapper.lose_remote()

    wrapper.failure()

    assert {ONE} == wrapper.kept()


def test_makes_room_before_git_sync_runs(start: Start, tmp_path: Path, log: Log) -> None:
    """The oldest commits are removed first, only as many as needed, and none during an outage."""
    with small_volume(tmp_path / "root", "9m"):
        wrapper = start()
        for name in (ONE, TWO, THREE):
            wrapper.follow(name, name[0] * 2_000_000)
        wrapper.lose_remote()
        wrapper.failure()
        kept = wrapper.kept()
        wrapper.remote.error = None
        assert Outcome("changed", FOUR) == wrapper.follow(FOUR, "4" * 2_000_000)
        wrapper.stop()

        assert ({ONE, TWO, THREE}, {TWO, THREE, FOUR}) == (kept, wrapper.kept())
    assert [ONE] == [event["revision"] for event in log.events("snapshot_dropped")]


@pytest.mark.parametrize(("inodes", "kept"), [(2, {TWO, THREE}), (99, {ONE, TWO, THREE})])
def test_makes_room_if_the_volume_lacks_inodes(
    start: Start, monkeypatch: pytest.MonkeyPatch, inodes: int, kept: set[str]
) -> None:
    wrapper = start()
    for name in (ONE, TWO):
        wrapper.follow(name, name)
    blocks = 1 << 20
    found = os.statvfs_result((4096, 4096, blocks, blocks, blocks, 100, inodes, inodes, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: found)

    wrapper.follow(THREE, THREE)

    assert kept == wrapper.kept()


def test_keeps_commits_whose_removal_would_free_no_room(start: Start, tmp_path: Path) -> None:
    """DAG runs that are pinned to these commits still need them."""
    with small_volume(tmp_path / "root", "9m"):
        wrapper = start()
        for name in (ONE, TWO, THREE):
            wrapper.follow(name, "a" * 4_000_000)

        assert {ONE, TWO, THREE} == wrapper.kept()
        wrapper.stop()


def test_a_large_commit_removes_older_ones_but_not_the_published_one(
    start: Start, tmp_path: Path, log: Log
) -> None:
    with small_volume(tmp_path / "root", "10m"):
        wrapper = start()
        for name, size in ((ONE, 1_000_000), (TWO, 1_000_000), (THREE, 7_500_000)):
            assert Outcome("changed", name) == wrapper.follow(name, name[0] * size)
        wrapper.commit(FOUR, "4" * 11_000_000)
        assert "target_full" == wrapper.failure().reason
        assert THREE == wrapper.shown()
        wrapper.stop()

    assert [ONE, TWO] == [event["revision"] for event in log.events("snapshot_dropped")]


def test_makes_room_in_the_same_cycle_if_the_volume_is_full_at_the_swap(
    start: Start, tmp_path: Path, log: Log
) -> None:
    with small_volume(tmp_path / "root", "1m"):
        garbage, twice = tmp_path / "root/.git-sync/garbage", tmp_path / "twice"
        fill = f"test -e {twice} && exit; touch {twice}; cat /dev/zero > {garbage}; true"
        hook = script(tmp_path / "hook", fill)
        wrapper = start(GITSYNC_PRE_PUBLISH_EXECHOOK_COMMAND=hook)
        wrapper.commit(ONE)

        assert (Outcome("changed", ONE), 2) == (wrapper.cycle(), wrapper.runs())
        wrapper.stop()

    assert 1 == len(log.events("repository_removed"))


def test_a_full_tmp_folder_removes_no_commit(
    start: Start, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_volume(temporary / "tmp", "1m") as tmp:
        monkeypatch.setenv("TMPDIR", str(tmp))
        wrapper = start.published()
        wrapper.follow(TWO)
        script(wrapper.folder / "git-sync", 'cat /dev/zero > "$TMPDIR/gitconfig"; exit 1')
        wrapper.commit(THREE)

        assert "private_folder_failed" == wrapper.failure().reason
        assert ({ONE, TWO}, True) == (wrapper.kept(), (wrapper.root / ".git-sync").exists())
        wrapper.stop()
