"""
Polls of a real git server: the commit that they find, and the requests that they need.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sidecar_runtime.fence import Fence
from tests.git_sync_wrapper.polling import Poll
from tests.support.git.git_server import GitServer, skip_reason
from tests.support.http.loopback import Exchange

pytestmark = pytest.mark.skipif(bool(skip_reason()), reason=skip_reason())


@pytest.mark.parametrize("version", [2, 0])
@pytest.mark.parametrize(
    "ref", ["HEAD", "main", "refs/heads/main", "heads/main", "annotated", "light", "feature/x"]
)
def test_finds_the_commit_of_a_ref(server: GitServer, poll: Poll, ref: str, version: int) -> None:
    repository = server.repository()
    first = repository.commit({"a.py": "1"})
    head = repository.commit({"a.py": "2"})
    repository.tag("annotated", first, "message")
    repository.tag("light", first)
    repository.set_branch("feature/x", first)
    repository.set_branch("main-2", first)
    if version == 0:
        repository.git("config", "protocol.version", "0")
        server.inject(without_version_2(server))

    said = poll(server.url(), ref).commit(Fence())

    assert (head if ref == "HEAD" or "main" in ref else first) == said


def without_version_2(server: GitServer) -> Callable[[Exchange], None]:
    """Return a fault: the server does not know version 2 of the protocol."""

    def fault(exchange: Exchange) -> None:
        headers = exchange.request.headers
        assert isinstance(headers, dict)
        headers.pop("git-protocol", None)
        exchange.send(exchange.good())

    return fault


def test_sees_commits_and_force_pushes_with_one_request_on_one_connection(
    server: GitServer, poll: Poll
) -> None:
    repository = server.repository()
    poller = poll(f"{server.url()}/")
    first = repository.commit({"a.py": "1"})
    assert first == poller.commit(Fence())
    connections = {request.connection for request in server.requests}
    for content in ("2", "3", None):
        server.forget()
        if content:
            expected = repository.commit({"a.py": content})
        else:
            expected = first
            repository.set_branch("main", first)

        assert expected == poller.commit(Fence())
        (request,) = server.requests
        assert ("POST", connections) == (request.method, {request.connection})


def test_polls_an_older_server_with_one_request(server: GitServer, poll: Poll) -> None:
    head = server.repository().commit({"a.py": "1"})
    server.inject(without_version_2(server))
    poller = poll(server.url())
    poller.commit(Fence())
    server.forget()

    assert head == poller.commit(Fence())
    assert ["GET"] == [request.method for request in server.requests]
