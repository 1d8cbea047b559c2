"""
Which files of a commit changed.
"""

import os
import shutil
from pathlib import Path

import pytest

from git_sync_wrapper.published.tree import changed_files, links_to, opened, walk
from tests.support.git.git_repository import Files, Repository

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

    def changed(self, before: str, after: str, git: str = "git") -> list[str] | None:
        return changed_files(git, os.environ, str(self.worktree), before, after)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_lists_new_and_changed_files(site: Site) -> None:
    one = site.commit({"a.py": "1", "b.py": "1", "gone.py": "1", "é x.py": "1"})
    two = site.commit({"b.py": "2", "c/d.py": "1", "gone.py": None, "é x.py": "2"})

    assert ["b.py", "c/d.py", "é x.py"] == site.changed(one, two)


def test_lists_nothing_if_git_cannot_tell(site: Site) -> None:
    one = site.commit({"a.py": "1", "b/c.py": "1"})
    attributes = site.commit({".gitattributes": "*.py text eol=crlf\n"})

    for before, after, git in (
        ("f" * 40, one, "git"),
        (one, one, "/missing"),
        (one, attributes, "git"),
    ):
        assert site.changed(before, after, git) is None


def test_lists_all_files_of_a_submodule_that_moved(site: Site) -> None:
    one = site.commit({"a.py": "1", "sub": "as if it were a submodule"})
    two = site.commit({"sub": "moved"})
    (site.worktree / "sub").unlink()
    (site.worktree / "sub/deep").mkdir(parents=True)
    (site.worktree / "sub/deep/b.py").touch()

    assert ["sub/deep/b.py"] == site.changed(one, two)


def test_lists_the_links_that_lead_to_a_changed_file(tmp_path: Path) -> None:
    links = {"a.py": "a.txt", "deep/up.py": "../a.txt", "b.py": "b.txt", "twice.py": "a.py"}
    (tmp_path / "deep").mkdir()
    for name, target in links.items():
        (tmp_path / name).symlink_to(target)
    for name in ("a.txt", "b.txt", "c.txt"):
        (tmp_path / name).touch()

    assert ["a.py", "deep/up.py", "twice.py"] == links_to(str(tmp_path), ["a.txt"])
    assert ["b.py"] == links_to(str(tmp_path), ["b.txt", "c.txt"])
    assert [] == links_to(str(tmp_path), ["c.txt"])


def test_lists_all_other_links_if_a_link_changed(tmp_path: Path) -> None:
    (tmp_path / "v2").mkdir()
    (tmp_path / "v2/a.txt").touch()
    (tmp_path / "version").symlink_to("v2")
    (tmp_path / "a.py").symlink_to("version/a.txt")

    assert ["a.py"] == links_to(str(tmp_path), ["version"])


def test_fails_if_a_folder_disappears_during_the_walk(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "dag.py").touch()
    with opened(str(tmp_path)) as folder:
        files = walk(folder)
        first = next(files)[0].partition("/")[0]
        shutil.rmtree(tmp_path / ("b" if first == "a" else "a"))

        with pytest.raises(FileNotFoundError):
            list(files)
