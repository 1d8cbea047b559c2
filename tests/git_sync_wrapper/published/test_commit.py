"""
Facts about a commit for people, from a real git.
"""

import json
import os
from pathlib import Path

import pytest

from git_sync_wrapper.published.commit import NAMED_PATHS, CommitFacts, describe, read_record
from tests.support.git.git_repository import Repository


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "r.git")


def ask(repository: Repository, commit: str, before: str = "", git: str = "git") -> CommitFacts:
    return describe(git, os.environ, str(repository.folder), commit, before)


def test_describes_and_records_author_time_subject_and_files(repository: Repository) -> None:
    before = repository.commit({"a.py": "1", "b.py": "1", "한국어.py": "1"})
    commit = repository.commit(
        {"a.py": "2", "b.py": None, "d/c d.py": "1"}, message="보고서 추가", author="김민지"
    )

    facts = ask(repository, commit, before)

    assert ("김민지", "보고서 추가") == (facts.author, facts.subject)
    assert facts.committed_at.startswith("2023-11-14T22:13:")
    assert {"added": 1, "changed": 1, "deleted": 1} == facts.counts
    assert {"added": ["d/c d.py"], "changed": ["a.py"], "deleted": ["b.py"]} == facts.paths
    record = json.loads(json.dumps(facts.recorded()))
    assert facts == read_record(record)
    assert {"author": "김민지", "added": 1, "changed": 1, "deleted": 1}.items() <= record.items()
    assert {"added": "1: d/c d.py", "changed": "1: a.py", "deleted": "1: b.py"} == facts.shown()[
        "last_change"
    ]


@pytest.mark.parametrize("before", ["", "f" * 40])
def test_omits_changes_without_the_previous_commit(repository: Repository, before: str) -> None:
    commit = repository.commit({"a.py": "1"}, message="First")

    facts = ask(repository, commit, before)

    assert {"commit"} == facts.shown().keys()
    assert {"author", "committed_at", "subject", "paths"} == facts.recorded().keys()
    assert facts == read_record(facts.recorded())


def test_records_zero_changes_since_the_same_commit(repository: Repository) -> None:
    commit = repository.commit({"a.py": "1"})

    facts = ask(repository, commit, commit)

    assert {"added": 0, "changed": 0, "deleted": 0}.items() <= facts.recorded().items()
    assert {"commit"} == facts.shown().keys()
    assert facts == read_record(facts.recorded())


def test_shows_only_the_first_of_many_paths(repository: Repository) -> None:
    before = repository.commit({"a.py": "1"})
    many = {f"{number:03}.py": "1" for number in range(NAMED_PATHS + 5)}

    shown = ask(repository, repository.commit(many), before).shown()["last_change"]

    assert isinstance(shown, dict)
    assert shown["added"].startswith(f"{len(many)}: 000.py, 001.py")
    assert f"{NAMED_PATHS:03}.py" not in shown["added"]


@pytest.mark.parametrize(("commit", "git"), [("f" * 40, "git"), ("HEAD", "/missing")])
def test_returns_no_facts_if_git_fails(repository: Repository, commit: str, git: str) -> None:
    repository.commit({"a.py": "1"})

    assert CommitFacts() == ask(repository, commit, "f" * 40, git)
    assert {} == CommitFacts().shown()


# Erases the line, rings, reverses the text, runs a script, ends the JSON, begins a new line.
HOSTILE = 'a\x1b[2K\x07\u202ecod\u2066<script>alert(1)</script>"}\r\x9b31m\x7f\ufeff'


def test_escapes_control_characters_in_the_texts_of_a_commit(repository: Repository) -> None:
    before = repository.commit({"a.py": "1"})
    author = HOSTILE.replace("<", "(").replace(">", ")")  # git allows no < or > in a name
    path = f"d/{HOSTILE.replace('/', '')}.py"
    commit = repository.commit({path.replace('"', ""): "1"}, message=HOSTILE, author=author)

    facts = ask(repository, commit, before)

    assert facts.subject.startswith(r"a\x1b[2K\x07\u202ecod\u2066<script>")
    texts = [facts.author, facts.subject, *facts.paths["added"]]
    assert all(text and text.isprintable() for text in texts), texts


def test_sanitizes_a_forged_record() -> None:
    long = "x" * 10_000
    record = {
        "author": {"a": 1},
        "subject": f"\x1b[2K{long}",
        "added": "many",
        "changed": 3,
        "paths": {"changed": [long, 7, "\udcff"] * 100, "added": ["a"], "other": ["b"]},
    }

    facts = read_record(record)

    assert ("", {"changed": 3}) == (facts.author, facts.counts)
    assert facts.subject.startswith(r"\x1b[2Kxxx") and len(facts.subject) < 300
    assert NAMED_PATHS == len(facts.paths["changed"])
    assert all(text.isprintable() for text in facts.paths["changed"])
    assert CommitFacts() == read_record({"paths": 7})
