"""
How a repository is polled, and when that changes.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from git_sync_wrapper.poll.polls import Polls
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from tests.git_sync_wrapper.access import given, make_access
from tests.git_sync_wrapper.polling import redirect
from tests.runtime.recording import Log
from tests.support.git.git_server import GitServer
from tests.support.raising import raised

ADVERT = "/dags.git/info/refs?service=git-upload-pack"


@pytest.fixture
def old(tmp_path: Path) -> Iterator[GitServer]:
    """The server where the repository was."""
    with GitServer(tmp_path / "old") as server:
        yield server


@pytest.fixture
def new(tmp_path: Path) -> Iterator[GitServer]:
    """The server where it is now; another port is another server."""
    with GitServer(tmp_path / "new") as server:
        yield server


@pytest.fixture
def polls(old: GitServer) -> Iterator[Polls]:
    """The polls of the repository at its old address."""
    _, options, _ = given(old.url())
    access = make_access(old.url())
    access.start()
    polls = Polls(options, access, {"PATH": os.environ["PATH"]})
    yield polls
    polls.close()
    access.close()


def test_leaves_polls_to_git_once_git_follows_a_redirect_to_another_server(
    old: GitServer, new: GitServer, polls: Polls, log: Log
) -> None:
    commits = [new.repository("dags.git").commit({"a.py": "1"})]
    old.inject(redirect(f"{new.url().removesuffix('/dags.git')}{ADVERT}"))

    found = [polls.commit(Fence())]
    asked = len(old.requests)
    commits.append(new.repository("dags.git").commit({"a.py": "2"}))
    found.append(polls.commit(Fence()))

    assert commits == found
    assert asked + 1 == len(old.requests)  # from git alone
    (event,) = log.events("polling_left_to_git")
    assert "leads to another server" in event["why"]


def test_reports_the_redirect_if_git_fails_as_well(old: GitServer, polls: Polls, log: Log) -> None:
    old.inject(redirect("http://127.0.0.1:1/login"))

    for _ in range(2):
        assert "redirect_refused" == raised(SidecarError, polls.commit, Fence()).reason
    assert [] == log.events("polling_left_to_git")
