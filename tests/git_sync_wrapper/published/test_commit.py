"""
What people learn about a commit, asked of a real git.
"""

import os
from pathlib import Path

import pytest

from git_sync_wrapper.published.commit import NAMED_PATHS, CommitFacts, describe
from tests.support.git_repository import Repository


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "r.git")


def ask(repository: Repository, commit: str, before: str = "", git: str = "git") -> CommitFacts:
    return describe(git, os.environ, str(repository.folder), commit, before)


def test_who_when_what_about_and_which_files(repository: Repository) -> None:
    before = repository.commit({"a.py": "1", "b.py": "1", "한국어.py": "1"})
    commit = repository.commit(
        {"a.py": "2", "b.py": None, "d/c d.py": "1"}, message="보고서 추가", author="김민지"
    )

    facts = ask(repository, commit, before)

    assert ("김민지", "보고서 추가") == (facts.author, facts.subject)
    assert facts.committed_at.startswith("2023-11-14T22:13:")
    assert {"added": 1, "changed": 1, "deleted": 1} == facts.counts
    assert {"added": ["d/c d.py"], "changed": ["a.py"], "deleted": ["b.py"]} == facts.paths
    assert {"added": "1: d/c d.py", "changed": "1: a.py", "deleted": "1: b.py"} == facts.shown()[
        "last_change"
    ]


def test_of_a_first_commit_no_change_is_known(repository: Repository) -> None:
    commit = repository.commit({"a.py": "1"}, message="First")

    assert {"commit"} == ask(repository, commit).shown().keys()


def test_of_many_paths_the_first_are_shown(repository: Repository) -> None:
    before = repository.commit({"a.py": "1"})
    many = {f"{number:03}.py": "1" for number in range(NAMED_PATHS + 5)}

    shown = ask(repository, repository.commit(many), before).shown()["last_change"]

    assert isinstance(shown, dict)
    assert shown["added"].startswith(f"{len(many)}: 000.py, 001.py")
    assert f"{NAMED_PATHS:03}.py" not in shown["added"]


@pytest.mark.parametrize(("commit", "git"), [("", "git"), ("f" * 40, "git"), ("HEAD", "/missing")])
def test_what_git_cannot_tell_is_left_out(repository: Repository, commit: str, git: str) -> None:
    repository.commit({"a.py": "1"})

    assert CommitFacts() == ask(repository, commit, "f" * 40, git)
    assert {} == CommitFacts().shown()
