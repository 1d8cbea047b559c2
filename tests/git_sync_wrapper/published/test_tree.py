"""
Which files of a commit changed.
"""

import os
import shutil
from pathlib import Path

import pytest

from git_sync_wrapper.published.tree import changed_files, links_to, opened, walk
from tests.support.git_repository import Files, Repository

ONE = "1" * 40


class Site:
    """A repository, and a worktree of its newest commit."""

    def __init__(self, folder: Path) -> None:
        self.repository = Repository(folder / "r.git")
        self._folder = folder
        self.worktree = folder

    def commit(self, files: Files) -> str:
        commit = self.repository.commit(files)
        self.worktree = self._folder / commit
        self.repository.git("worktree", "add", "--detach", str(self.worktree), commit)
        return commit

    def changed(self, before: str, after: str, git: str = "git") -> list[str]:
        return sorted(changed_files(git, os.environ, str(self.worktree), before, after))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_names_what_is_new_or_changed(site: Site) -> None:
    one = site.commit({"a.py": "1", "b.py": "1", "gone.py": "1", "é x.py": "1"})
    two = site.commit({"b.py": "2", "c/d.py": "1", "gone.py": None, "é x.py": "2"})

    assert ["b.py", "c/d.py", "é x.py"] == site.changed(one, two)


def test_all_files_are_new_without_a_commit_before_and_where_git_cannot_tell(site: Site) -> None:
    one = site.commit({"a.py": "1", "b/c.py": "1"})

    for before, git in (("", "git"), ("f" * 40, "git"), (one, "/missing")):
        assert ["a.py", "b/c.py"] == site.changed(before, one, git)


def test_attributes_change_files_that_are_not_named(site: Site) -> None:
    one = site.commit({"a.py": "1"})
    two = site.commit({".gitattributes": "*.py text eol=crlf\n"})

    assert [".gitattributes", "a.py"] == site.changed(one, two)


def test_a_submodule_that_moved_changed_as_a_whole(site: Site) -> None:
    one = site.commit({"a.py": "1", "sub": "as if it were a submodule"})
    two = site.commit({"sub": "moved"})
    (site.worktree / "sub").unlink()
    (site.worktree / "sub/deep").mkdir(parents=True)
    (site.worktree / "sub/deep/b.py").touch()

    assert ["sub/deep/b.py"] == site.changed(one, two)


def test_links_to_folders_are_files(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/.git").touch()
    (tmp_path / "link").symlink_to("folder")

    assert ["link"] == changed_files("git", os.environ, str(tmp_path), "", ONE)


def test_links_show_what_is_new_of_the_file_that_they_lead_to(tmp_path: Path) -> None:
    links = {"a.py": "a.txt", "deep/up.py": "../a.txt", "b.py": "b.txt", "twice.py": "a.py"}
    (tmp_path / "deep").mkdir()
    for name, target in links.items():
        (tmp_path / name).symlink_to(target)
    for name in ("a.txt", "b.txt", "c.txt"):
        (tmp_path / name).touch()

    assert ["a.py", "deep/up.py", "twice.py"] == links_to(str(tmp_path), ["a.txt"])
    assert ["b.py"] == links_to(str(tmp_path), ["b.txt", "c.txt"])
    assert [] == links_to(str(tmp_path), ["c.txt"])


def test_a_link_that_changed_may_be_on_the_way_of_every_other(tmp_path: Path) -> None:
    (tmp_path / "v2").mkdir()
    (tmp_path / "v2/a.txt").touch()
    (tmp_path / "version").symlink_to("v2")
    (tmp_path / "a.py").symlink_to("version/a.txt")

    assert ["a.py"] == links_to(str(tmp_path), ["version"])


def test_a_folder_that_cannot_be_opened_is_never_left_out_unseen(tmp_path: Path) -> None:
    """One that goes away while its neighbor is walked."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "dag.py").touch()
    with opened(str(tmp_path)) as folder:
        files = walk(folder)
        first = next(files)[0].partition("/")[0]
        shutil.rmtree(tmp_path / ("b" if first == "a" else "a"))

        with pytest.raises(FileNotFoundError):
            list(files)
