"""
Polls of a failing server: each fault has a reason, and every wait has a limit.
"""

from __future__ import annotations

import socket
import threading

import pytest

from git_sync_wrapper.http.connection import PATIENCE, Patience
from git_sync_wrapper.poll.http_poller import HttpPoller
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import CycleAbandoned, Fence
from tests.git_sync_wrapper.polling import Poll, error_of, redirect
from tests.support.git.git_server import GitServer, skip_reason
from tests.support.http import faults
from tests.support.http.loopback import Answer, Fault, dead_endpoint
from tests.support.program import own_port

pytestmark = pytest.mark.skipif(bool(skip_reason()), reason=skip_reason())

HTML = {"Content-Type": "text/html"}


@pytest.mark.parametrize(
    ("answer", "reason", "said", "advised"),
    [
        (Answer(404), "repository_not_found", "404", "GITSYNC_REPO"),
        (Answer(429), "throttled", "429", "longer period"),
        (Answer(503), "throttled", "503", "check the git server"),
        (Answer(500), "server_error", "500", "Check the git server"),
        (Answer(418), "server_error", "418", "Check the git server"),
        (Answer(200, HTML, b"<html>Sign in"), "not_a_git_server", "", "login page"),
        (Answer(200, {}, b"000fERR go away0000"), "remote_refused", "go away", "quoted error"),
    ],
)
def test_each_unusable_answer_has_a_reason_and_advice(
    server: GitServer, poll: Poll, answer: Answer, reason: str, said: str, advised: str
) -> None:
    server.inject(faults.answer_with(answer))

    error = error_of(poll(server.url()))

    assert (reason, True) == (error.reason, said in error.message)
    assert advised in error.advice


def test_repeats_the_first_request_after_a_failure(server: GitServer, poll: Poll) -> None:
    """The next request may reach another server."""
    head = server.repository().commit({"a.py": "1"})
    poller = poll(server.url())
    poller.commit(Fence())
    server.inject(faults.answer_with(Answer(404)), times=1)
    error_of(poller)
    server.forget()

    assert head == poller.commit(Fence())
    assert ["GET", "POST"] == [request.method for request in server.requests]


def test_finds_a_repository_that_moved_back(server: GitServer, poll: Poll) -> None:
    head = server.repository("new.git").commit({"a.py": "1"})
    server.inject(
        redirect("/new.git/info/refs?service=git-upload-pack"), lambda r: "/old" in r.path, times=1
    )
    poller = poll(server.url("old.git"))
    assert head == poller.commit(Fence())
    (server.folder / "new.git").rename(server.folder / "old.git")

    assert "repository_not_found" == error_of(poller).reason
    assert head == poller.commit(Fence())


def test_reports_a_deleted_ref_and_finds_it_once_recreated(server: GitServer, poll: Poll) -> None:
    repository = server.repository()
    repository.commit({"a.py": "1"})
    poller = poll(server.url())
    poller.commit(Fence())

    repository.delete_branch("main")

    error = error_of(poller)
    assert ("ref_not_found", True) == (error.reason, "main" in error.message)
    head = repository.commit({"a.py": "2"})
    assert head == poller.commit(Fence())


def test_reports_a_missing_head_in_an_empty_repository(server: GitServer, poll: Poll) -> None:
    server.repository()

    assert "ref_not_found" == error_of(poll(server.url(), "HEAD")).reason


@pytest.mark.parametrize(
    "fault",
    [
        faults.reset(),
        faults.reset(after=20),
        faults.truncate(20),
        faults.chunked(end=False),
        faults.raw(b"SSH-2.0-OpenSSH_9.2\r\n"),
        faults.raw(b""),
    ],
    ids=["reset", "reset half-way", "truncated", "chunk missing", "no http", "nothing"],
)
@pytest.mark.parametrize("at", ["GET", "POST"])
def test_a_fault_fails_only_one_poll(server: GitServer, poll: Poll, fault: Fault, at: str) -> None:
    head = server.repository().commit({"a.py": "1"})
    poller = poll(server.url())
    server.inject(fault, lambda request: request.method == at)

    assert error_of(poller).reason in ("remote_unreachable", "not_a_git_server")
    server.heal()
    assert head == poller.commit(Fence())


def test_a_server_restart_between_polls_is_not_a_failure(server: GitServer, poll: Poll) -> None:
    head = server.repository().commit({"a.py": "1"})
    poller = poll(server.url())
    poller.commit(Fence())

    server.stop()
    server.start()

    assert head == poller.commit(Fence())


@pytest.mark.parametrize(
    ("place", "reason", "said"),
    [
        (f"127.0.0.1:{own_port()}", "remote_unreachable", "Connection refused"),
        ("no-such-host.invalid", "name_unresolved", "no-such-host.invalid"),
    ],
    ids=["connection refused", "no such name"],
)
def test_reports_an_unreachable_server_and_an_unknown_host(
    poll: Poll, place: str, reason: str, said: str
) -> None:
    error = error_of(poll(f"http://{place}/dags.git"))

    assert (reason, True) == (error.reason, said in error.message)


@pytest.mark.parametrize(
    ("sent", "reason", "said"),
    [
        (b"", "remote_unreachable", "connection to 127.0.0.1 failed: it was cut"),
        (b"\x15\x03\x03\x00\x02\x01\x00", "remote_unreachable", "it was cut"),
        (b"\x15\x03\x03\x00\x02\x02\x28", "tls_failed", "HANDSHAKE_FAILURE"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "tls_failed", "WRONG_VERSION_NUMBER"),
    ],
    ids=["cut", "close_notify", "alert", "no TLS"],
)
def test_distinguishes_a_cut_connection_from_a_failed_handshake(
    poll: Poll, sent: bytes, reason: str, said: str
) -> None:
    """A load balancer without a healthy backend accepts connections and closes them."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            peer, _ = server.accept()
            with peer:
                peer.recv(65536)  # the ClientHello
                peer.sendall(sent)

        thread = threading.Thread(target=answer)
        thread.start()
        error = error_of(poll(f"https://127.0.0.1:{server.getsockname()[1]}/dags.git"))
        thread.join()

    assert (reason, True) == (error.reason, said in error.message)


@pytest.mark.parametrize("repo", ["http://a..b/x", "http://host/p\u00e4th", "http://host/a b"])
def test_an_invalid_url_is_an_error_with_a_reason(poll: Poll, repo: str) -> None:
    assert error_of(poll(repo, http_proxy="")).reason


@pytest.mark.parametrize("character", ["\u20ac", "\u200b", "\x07"])
def test_reports_a_header_invalid_in_http(server: GitServer, poll: Poll, character: str) -> None:
    error = error_of(poll(server.url(), GITSYNC_GIT_CONFIG=f'http.extraHeader:"X: {character}"'))

    assert error.message.endswith("a header contains a character that HTTP does not allow")


def test_times_out_on_a_silent_server_and_on_a_slow_answer(server: GitServer, poll: Poll) -> None:
    server.repository().commit({"a.py": "1"})
    server.inject(faults.drip(1, 0.05))
    hasty = Patience(answer_seconds=0.2)

    assert "remote_timeout" == error_of(poll(server.url(), patience=hasty)).reason
    with dead_endpoint() as endpoint:
        assert "remote_timeout" == error_of(poll(f"{endpoint}/x.git", patience=hasty)).reason


def test_default_time_limits() -> None:
    assert Patience(connect_seconds=10.0, answer_seconds=30.0, idle_seconds=60.0) == PATIENCE


@pytest.mark.parametrize("is_kept", [False, True])
def test_a_revoked_fence_ends_the_wait(server: GitServer, poll: Poll, is_kept: bool) -> None:
    server.repository().commit({"a.py": "1"})
    poller, fence = poll(server.url()), Fence()
    if is_kept:
        poller.commit(Fence())
        server.forget()
    server.inject(faults.hang())
    ended: list[BaseException] = []

    def run() -> None:
        try:
            poller.commit(fence)
        except (CycleAbandoned, SidecarError) as error:
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    server.wait_for()
    fence.revoke()
    thread.join(10)

    assert [CycleAbandoned] == [type(error) for error in ended]


@pytest.mark.parametrize(("idle_seconds", "connections"), [(0.0, 2), (60.0, 1)])
def test_replaces_a_connection_that_was_idle_too_long(
    server: GitServer, poll: Poll, idle_seconds: float, connections: int
) -> None:
    server.repository().commit({"a.py": "1"})
    poller = poll(server.url(), patience=Patience(idle_seconds=idle_seconds))
    poller.commit(Fence())
    server.forget()

    poller.commit(Fence())
    poller.commit(Fence())

    assert connections == len({request.connection for request in server.requests})


def test_close_closes_the_connection(server: GitServer, poll: Poll) -> None:
    server.repository().commit({"a.py": "1"})
    poller = poll(server.url())
    poller.commit(Fence())
    assert isinstance(poller, HttpPoller)

    poller.close()

    assert poller._remote._socket is None
