"""
Pollers, and the git server that they poll.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from git_sync_wrapper.http.connection import PATIENCE, Patience
from git_sync_wrapper.poll.http_poller import HttpPoller, make_poller
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from tests.git_sync_wrapper.access import given, make_access
from tests.support.git.git_server import GitServer
from tests.support.http import faults
from tests.support.http.loopback import Answer, Exchange
from tests.support.raising import raised

Poll = Callable[..., HttpPoller]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    with GitServer(tmp_path / "git") as server:
        yield server


@pytest.fixture
def poll() -> Iterator[Poll]:
    """A factory of pollers for a repository, its ref and variables."""
    made: list[HttpPoller] = []

    def make(
        repo: str, ref: str = "main", patience: Patience = PATIENCE, **variables: str
    ) -> HttpPoller:
        _, options, _ = given(repo, GITSYNC_REF=ref, **variables)
        access = make_access(repo, GITSYNC_REF=ref, **variables)
        poller = make_poller(options, access, patience)
        assert poller is not None
        made.append(poller)
        return poller

    yield make
    for poller in made:
        poller.close()


def error_of(poller: HttpPoller) -> SidecarError:
    return raised(SidecarError, poller.commit, Fence())


def redirect(to: str) -> Callable[[Exchange], None]:
    """Return a fault that answers with a redirect."""
    return faults.answer_with(Answer(301, {"Location": to}))
