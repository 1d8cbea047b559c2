"""
What consumers see: snapshots, the link, the record.
"""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from git_sync_wrapper import volume as module
from git_sync_wrapper.options import Options, read_options
from git_sync_wrapper.volume import Published, Volume
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import CycleAbandoned, Fence

ONE, TWO = "1" * 40, "2" * 40


def options(root: Path, link: str = "repo") -> Options:
    return read_options(
        [f"--root={root}", f"--link={link}"], {"GITSYNC_REPO": "https://h/r", "GITSYNC_REF": "main"}
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def volume(root: Path) -> Iterator[Volume]:
    with_one = Volume(options(root), retain_count=0, retain_seconds=0)
    yield with_one
    with_one.close()


@pytest.fixture
def worktree(root: Path) -> Path:
    folder = root / ".git-sync" / ".worktrees" / ONE
    (folder / "dags").mkdir(parents=True)
    (folder / "dags" / "a.py").write_text("a = 1\n")
    (folder / ".git").write_text(f"gitdir: ../../.git/worktrees/{ONE}\n")
    return folder


def test_shows_a_commit_by_a_relative_link(
    volume: Volume, root: Path, worktree: Path, fence: Fence
) -> None:
    volume.add(ONE, str(worktree), fence)
    assert Published() == volume.published()

    volume.show(ONE, "settings", fence)

    assert f".snapshots/{ONE}" == os.readlink(root / "repo")
    assert "a = 1\n" == (root / "repo/dags/a.py").read_text()
    assert (ONE, "settings") == (volume.published().commit, volume.published().made_by)
    record = json.loads((root / ".snapshots/published.json").read_text())
    assert {"revision": ONE, "repo": "https://h/r", "ref": "main"}.items() <= record.items()


def test_files_are_hard_links_and_git_finds_its_repository(
    volume: Volume, root: Path, worktree: Path, fence: Fence
) -> None:
    volume.add(ONE, str(worktree), fence)

    snapshot = root / ".snapshots" / ONE
    assert (worktree / "dags/a.py").samefile(snapshot / "dags/a.py")
    assert f"gitdir: ../../.git-sync/.git/worktrees/{ONE}\n" == (snapshot / ".git").read_text()


def test_a_snapshot_outlives_the_worktree(
    volume: Volume, root: Path, worktree: Path, fence: Fence
) -> None:
    volume.add(ONE, str(worktree), fence)
    volume.show(ONE, "", fence)

    (worktree / "dags/a.py").unlink()

    assert "a = 1\n" == (root / "repo/dags/a.py").read_text()


def test_submodules_symlinks_and_empty_folders_come_along(
    volume: Volume, root: Path, worktree: Path, fence: Fence
) -> None:
    (worktree / "sub").mkdir()
    (worktree / "sub/.git").write_text(f"gitdir: ../../../.git/worktrees/{ONE}/modules/sub\n")
    (worktree / "dags/link.py").symlink_to("a.py")
    (worktree / "dags/folder").symlink_to("../sub")
    (worktree / "unused/deep").mkdir(parents=True)

    volume.add(ONE, str(worktree), fence)

    snapshot = root / ".snapshots" / ONE
    expected = f"gitdir: ../../../.git-sync/.git/worktrees/{ONE}/modules/sub\n"
    assert expected == (snapshot / "sub/.git").read_text()
    assert ("a.py", "../sub") == (
        os.readlink(snapshot / "dags/link.py"),
        os.readlink(snapshot / "dags/folder"),
    )
    assert (snapshot / "unused/deep").is_dir()


def test_the_same_commit_again_takes_the_old_ones_place(
    volume: Volume, root: Path, worktree: Path, fence: Fence
) -> None:
    volume.add(ONE, str(worktree), fence)
    volume.show(ONE, "", fence)
    (worktree / "new.py").write_text("")

    volume.add(ONE, str(worktree), fence)

    assert (root / "repo/new.py").exists()
    assert [ONE] == [path.name for path in (root / ".snapshots").iterdir() if path.is_dir()]


def test_two_folders_change_places_where_the_file_system_cannot(
    volume: Volume,
    root: Path,
    worktree: Path,
    fence: Fence,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    volume.add(ONE, str(worktree), fence)
    (worktree / "new.py").write_text("")
    monkeypatch.setattr(module, "_RENAME_EXCHANGE", 1 << 20)  # no such flag: EINVAL

    volume.add(ONE, str(worktree), fence)

    assert (root / ".snapshots" / ONE / "new.py").exists()


def test_older_commits_are_pruned_and_the_shown_one_stays(
    volume: Volume, root: Path, worktree: Path, fence: Fence
) -> None:
    for commit in (ONE, TWO):
        volume.add(commit, str(worktree), fence)
        volume.show(commit, "", fence)

    volume.prune(TWO, fence)

    assert [TWO] == [path.name for path in (root / ".snapshots").iterdir() if path.is_dir()]


def test_an_abandoned_cycle_turns_no_link(
    volume: Volume, root: Path, worktree: Path, fence: Fence
) -> None:
    volume.add(ONE, str(worktree), fence)
    fence.revoke()

    with pytest.raises(CycleAbandoned):
        volume.show(ONE, "", fence)

    assert not (root / "repo").is_symlink()


def test_what_a_crash_left_is_swept(volume: Volume, root: Path) -> None:
    (root / ".snapshots" / f".{ONE}.1.1").mkdir()

    volume.prepare()

    assert [".airflowignore"] == os.listdir(root / ".snapshots")


def test_a_lost_link_can_be_turned_again(
    volume: Volume, root: Path, worktree: Path, fence: Fence
) -> None:
    volume.add(ONE, str(worktree), fence)
    volume.show(ONE, "", fence)
    (root / "repo").unlink()

    assert Published() == volume.published()
    assert ONE == volume.recorded()


def test_killed_before_the_record_is_written_it_still_knows_what_is_shown(
    root: Path, worktree: Path, fence: Fence
) -> None:
    first = Volume(options(root), retain_count=0, retain_seconds=0)
    first.add(ONE, str(worktree), fence)
    first.show(ONE, "settings", fence)
    first.close()
    (root / ".snapshots/published.json").unlink()

    second = Volume(options(root), retain_count=0, retain_seconds=0)
    try:
        published = second.published()
    finally:
        second.close()

    assert (ONE, "") == (published.commit, published.made_by)
    assert published.published_at is not None and published.published_at <= time.time()


@pytest.mark.parametrize("content", ["", "[]", "{", '{"revision": 7}', '{"revision": "../x"}'])
def test_a_record_that_is_none_is_none(volume: Volume, root: Path, content: str) -> None:
    (root / ".snapshots/published.json").write_text(content)

    assert "" == volume.recorded()


def test_a_link_in_a_folder_leads_back(root: Path, worktree: Path, fence: Fence) -> None:
    volume = Volume(options(root, "sub/dir/repo"), retain_count=0, retain_seconds=0)
    try:
        volume.add(ONE, str(worktree), fence)
        volume.show(ONE, "", fence)
        shown = volume.published().commit
    finally:
        volume.close()

    assert ONE == shown
    assert f"../../.snapshots/{ONE}" == os.readlink(root / "sub/dir/repo")


def test_a_link_of_git_sync_itself_is_replaced(
    volume: Volume, root: Path, worktree: Path, fence: Fence
) -> None:
    (root / "repo").symlink_to(".worktrees/x")
    volume.add(ONE, str(worktree), fence)

    volume.show(ONE, "", fence)

    assert ONE == volume.published().commit


def test_a_file_in_place_of_the_link_is_moved_aside(
    volume: Volume, root: Path, worktree: Path, fence: Fence
) -> None:
    volume.add(ONE, str(worktree), fence)
    (root / "repo").write_text("theirs")

    volume.show(ONE, "", fence)

    [aside] = root.glob("repo.replaced-*")
    assert ("theirs", ONE) == (aside.read_text(), volume.published().commit)


def test_a_folder_with_files_is_moved_aside_and_an_empty_one_makes_way(
    volume: Volume, root: Path, worktree: Path, fence: Fence
) -> None:
    volume.add(ONE, str(worktree), fence)
    (root / "repo").mkdir()
    (root / "repo/theirs.py").touch()

    volume.show(ONE, "", fence)

    [aside] = root.glob("repo.replaced-*")
    assert ["theirs.py"] == os.listdir(aside)
    assert ONE == volume.published().commit

    (root / "repo").unlink()
    (root / "repo").mkdir()
    volume.show(ONE, "", fence)
    assert ONE == volume.published().commit


def test_a_link_on_another_volume_is_refused_by_name(root: Path) -> None:
    with pytest.raises(SidecarError) as caught:
        Volume(options(root, "/proc/repo"), retain_count=0, retain_seconds=0)

    assert "link_elsewhere" == caught.value.reason


def test_a_root_that_was_removed_is_noticed(volume: Volume, root: Path) -> None:
    assert volume.is_current()

    (root / ".snapshots").rename(root / "gone")

    assert not volume.is_current()
    (root / ".snapshots").mkdir()
    assert not volume.is_current()
