"""
How a poll reaches its server: certificate authorities, proxies, headers, redirects.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from git_sync_wrapper.http.connection import Patience
from git_sync_wrapper.poll.http_poller import make_poller
from sidecar_runtime.fence import Fence
from tests.git_sync_wrapper.access import given, make_access
from tests.git_sync_wrapper.polling import Poll, error_of, redirect
from tests.support.git.git_server import GitServer, skip_reason
from tests.support.http import faults
from tests.support.http.certificates import self_signed
from tests.support.http.fake_proxy import FakeProxy
from tests.support.http.loopback import Answer, Exchange, Fault

pytestmark = pytest.mark.skipif(bool(skip_reason()), reason=skip_reason())


# --- connections


def test_trusts_only_the_given_authority(tmp_path: Path, poll: Poll) -> None:
    context, authority = self_signed(tmp_path / "tls", "localhost")
    with GitServer(tmp_path / "git", tls=context) as server:
        head = server.repository().commit({"a.py": "1"})

        assert "tls_failed" == error_of(poll(server.url())).reason
        assert head == poll(server.url(), GITSYNC_GIT_CONFIG=f"http.sslCAInfo:{authority}").commit(
            Fence()
        )
        assert head == poll(server.url(), GIT_SSL_CAINFO=str(authority)).commit(Fence())
        assert head == poll(server.url(), GIT_SSL_NO_VERIFY="1").commit(Fence())
        missing = error_of(poll(server.url(), GIT_SSL_CAINFO="/nowhere.pem"))
        assert ("tls_failed", True) == (missing.reason, "/nowhere.pem" in missing.message)


def test_reaches_a_tls_server_through_a_proxy(tmp_path: Path, poll: Poll) -> None:
    context, authority = self_signed(tmp_path / "tls", "git.example.com")
    with GitServer(tmp_path / "git", tls=context) as server, FakeProxy(server.port) as proxy:
        head = server.repository().commit({"a.py": "1"})
        poller = poll(
            "https://git.example.com/dags.git",
            HTTPS_PROXY=proxy.endpoint,
            GIT_SSL_CAINFO=str(authority),
        )

        assert [head, head] == [poller.commit(Fence()) for _ in range(2)]
        assert ["git.example.com:443"] == proxy.asked


def drip_head(exchange: Exchange) -> None:
    exchange.send_bytes(b"HTTP/1.1 200 OK\r\n")
    for _ in range(100):
        exchange.send_bytes(b"X: y\r\n")
        exchange.pause(0.05)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (faults.answer_with(Answer(407)), "proxy_refused"),
        (faults.raw(b"HTTP/1.1 200 OK\r\nX"), "remote_unreachable"),
        (faults.raw(b""), "remote_unreachable"),
        (drip_head, "remote_timeout"),
    ],
    ids=["refused", "cut off", "closed", "endless"],
)
def test_reports_a_proxy_that_opens_no_tunnel_in_time(
    server: GitServer, poll: Poll, fault: Fault, reason: str
) -> None:
    server.inject(fault)
    poller = poll(
        "https://git.example.com/dags.git",
        patience=Patience(connect_seconds=0.3 if reason == "remote_timeout" else 10.0),
        HTTPS_PROXY=f"http://me:pw@127.0.0.1:{server.port}",
    )

    assert reason == error_of(poller).reason
    (request,) = server.requests
    assert ("CONNECT", "git.example.com:443") == (request.method, request.target)
    assert "Basic bWU6cHc=" == request.headers["proxy-authorization"]


def test_sends_the_whole_url_to_a_proxy_over_http(server: GitServer, poll: Poll) -> None:
    """The server of the test acts as the proxy, and receives the password for the proxy."""
    poller = poll(
        "http://git.example.com/dags.git", http_proxy=f"http://me:pw@127.0.0.1:{server.port}"
    )

    error_of(poller)

    (request,) = server.requests
    assert request.target.startswith("http://git.example.com/dags.git/info/refs")
    assert "Basic bWU6cHc=" == request.headers["proxy-authorization"]
    assert "git.example.com" == request.headers["host"]


def test_sends_extra_headers_from_git_config(server: GitServer, poll: Poll) -> None:
    server.repository().commit({"a.py": "1"})
    server.accept(("deploy", "right"))
    config = 'http.extraHeader:"Authorization: Basic ZGVwbG95OnJpZ2h0"'

    assert poll(server.url(), GITSYNC_GIT_CONFIG=config).commit(Fence())


@pytest.mark.parametrize(
    ("repo", "variables"),
    [
        ("git@github.com:acme/dags.git", {}),
        ("ssh://git@github.com/acme/dags.git", {}),
        ("file:///srv/dags.git", {}),
        ("git://[::1/dags.git", {}),
        ("https://github.com/acme/dags.git?x=1", {}),
        ("https://github.com/acme/dags.git", {"GITSYNC_COOKIE_FILE": "true"}),
        ("https://github.com/acme/dags.git", {"GITSYNC_GIT_CONFIG": "http.sslCert:/x.pem"}),
        ("https://github.com/acme/dags.git", {"HTTPS_PROXY": "socks5://proxy:1080"}),
    ],
)
def test_leaves_unsupported_repos_and_settings_to_git(repo: str, variables: dict[str, str]) -> None:
    _, options, _ = given(repo, **variables)

    assert make_poller(options, make_access(repo, **variables)) is None


# --- redirects


def test_follows_a_redirect_on_the_same_server(server: GitServer, poll: Poll) -> None:
    head = server.repository("new.git").commit({"a.py": "1"})
    server.inject(
        redirect("/new.git/info/refs?service=git-upload-pack"), lambda r: "/old" in r.path
    )
    poller = poll(server.url("old"))

    assert [head, head] == [poller.commit(Fence()) for _ in range(2)]


def test_follows_a_repository_that_moves_between_two_polls(server: GitServer, poll: Poll) -> None:
    """The server redirects the POST, too, which a client does not follow."""
    head = server.repository("new.git").commit({"a.py": "1"})
    server.repository("old.git").commit({"a.py": "1"})
    poller = poll(server.url("old.git"))
    poller.commit(Fence())

    old = "/old.git/"
    advert = redirect("/new.git/info/refs?service=git-upload-pack")
    server.inject(advert, lambda r: r.method == "GET" and old in r.path)
    service = redirect("/new.git/git-upload-pack")
    server.inject(service, lambda r: r.method == "POST" and old in r.path)

    assert head == poller.commit(Fence())


@pytest.mark.parametrize(
    "to",
    [
        "http://127.0.0.1:1/dags.git/info/refs?service=git-upload-pack",
        "https://evil.example/dags.git/info/refs?service=git-upload-pack",
        "/login",
        "",
        "/dags.git/info/refs?service=git-upload-pack",  # a loop
    ],
)
def test_refuses_unsafe_redirects_without_sending_credentials(
    server: GitServer, poll: Poll, to: str
) -> None:
    server.inject(redirect(to))
    poller = poll(server.url(), GITSYNC_USERNAME="deploy", GITSYNC_PASSWORD="secret")

    assert "redirect_refused" == error_of(poller).reason
    assert 1 == len(server.requests)
