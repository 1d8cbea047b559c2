"""
Obstacles from which git-sync does not recover.
"""

import os
from pathlib import Path

import pytest

from git_sync_wrapper.engine.heal import heal, remove_stale, throw_away


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


@pytest.mark.parametrize(
    "name",
    [
        ".git/shallow.lock",
        ".git/HEAD.lock",
        ".git/index.lock",
        ".git/gc.pid",
        ".git/refs/heads/main.lock",
        f".git/worktrees/{'a' * 40}/index.lock",
        ".git/modules/sub/config.lock",
        ".git/objects/pack/tmp_pack_Xy",
        ".git/objects/ab/tmp_obj_Xy",
    ],
)
def test_removes_leftovers_of_a_killed_git(tmp_path: Path, name: str) -> None:
    touch(tmp_path / name)
    touch(tmp_path / ".git/objects/pack/pack-1.pack")

    removed = heal(str(tmp_path))

    assert [name] == removed
    assert not (tmp_path / name).exists()
    assert (tmp_path / ".git/objects/pack/pack-1.pack").exists()


@pytest.mark.parametrize(
    ("folder", "file"), [(".git/objects/tmp_objdir-incoming-x", "pack/p"), ("candidate", "file")]
)
def test_removes_a_quarantine_and_a_folder_in_place_of_the_link(
    tmp_path: Path, folder: str, file: str
) -> None:
    touch(tmp_path / folder / file)
    (tmp_path / "tmp-link").symlink_to(".worktrees/x")  # left by a killed publish

    assert {folder, "tmp-link"} == set(heal(str(tmp_path)))
    assert not (tmp_path / folder).exists()
    assert not os.path.lexists(tmp_path / "tmp-link")


def test_leaves_a_sound_repository_alone(tmp_path: Path) -> None:
    (tmp_path / "candidate").symlink_to(".worktrees/x")
    for name in (".git/HEAD", ".git/objects/ab/cd", ".worktrees/x/dag.lock", "tmp-link/x"):
        touch(tmp_path / name)

    assert [] == heal(str(tmp_path))
    assert (tmp_path / ".worktrees/x/dag.lock").exists()


def test_removes_a_root_that_is_not_a_folder(tmp_path: Path) -> None:
    root = tmp_path / ".git-sync"
    root.symlink_to("/etc")

    heal(str(root))

    assert not root.is_symlink()


def test_throws_away_the_whole_repository_and_accepts_a_missing_one(tmp_path: Path) -> None:
    touch(tmp_path / "root" / ".git" / "HEAD")
    for _ in range(2):
        throw_away(str(tmp_path / "root"))

    assert [] == list(tmp_path.iterdir())
    assert [] == heal(str(tmp_path / "root"))


def test_removes_all_checkouts_except_the_current_one(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / ".worktrees" / name).mkdir(parents=True)
    (tmp_path / "candidate").symlink_to(".worktrees/new")

    remove_stale(str(tmp_path))

    assert ["new"] == os.listdir(tmp_path / ".worktrees")


def test_removes_nothing_without_a_checkout(tmp_path: Path) -> None:
    remove_stale(str(tmp_path))

    assert [] == os.listdir(tmp_path)
