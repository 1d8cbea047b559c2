"""
Which way a repository is polled, and when that changes.
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
from tests.support.git_server import GitServer
from tests.support.raising import raised

ADVERT = "/dags.git/info/refs?service=git-upload-pack"


@pytest.fixture
def old(tmp_path: Path) -> Iterator[GitServer]:
    """Where the repository was."""
    with GitServer(tmp_path / "old") as server:
        yield server


@pytest.fixture
def new(tmp_path: Path) -> Iterator[GitServer]:
    """Where it is now, on another port: another server."""
    with GitServer(tmp_path / "new") as server:
        yield server


@pytest.fixture
def polls(old: GitServer) -> Iterator[Polls]:
    """Of the repository, by its old address."""
    _, options, _ = given(old.url())
    access = make_access(old.url())
    access.start()
    polls = Polls(options, access, {"PATH": os.environ["PATH"]})
    yield polls
    polls.close()
    access.close()


def test_a_server_that_leads_to_another_is_left_to_git_once_git_gets_there(
    old: GitServer, new: GitServer, polls: Polls, log: Log
) -> None:
    commits = [new.repository("dags.git").commit({"a.py": "1"})]
    old.inject(redirect(f"{new.url().removesuffix('/dags.git')}{ADVERT}"))
    assert polls.is_light

    found = [polls.commit(Fence())]
    asked = len(old.requests)
    commits.append(new.repository("dags.git").commit({"a.py": "2"}))
    found.append(polls.commit(Fence()))

    assert (commits, False) == (found, polls.is_light)
    assert asked + 1 == len(old.requests)  # by git alone
    (event,) = log.events("polling_left_to_git")
    assert "leads to another server" in event["why"]


def test_where_git_does_not_get_there_either_the_redirect_is_to_blame(
    old: GitServer, polls: Polls, log: Log
) -> None:
    old.inject(redirect("http://127.0.0.1:1/login"))

    for _ in range(2):
        assert "redirect_refused" == raised(SidecarError, polls.commit, Fence()).reason
    assert polls.is_light
    assert [] == log.events("polling_left_to_git")
