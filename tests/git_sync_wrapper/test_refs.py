"""
The poll, against a real git server: what it says, what it costs, how it fails.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import pytest

from git_sync_wrapper import remote
from git_sync_wrapper.access import Access
from git_sync_wrapper.credential import Credential
from git_sync_wrapper.refs import HttpPoller, Poller, make_poller
from git_sync_wrapper.remote import basic
from git_sync_wrapper.way import Way
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import CycleAbandoned, Fence
from tests.git_sync_wrapper.access import given, make_access
from tests.support import faults
from tests.support.certificates import self_signed
from tests.support.fake_proxy import FakeProxy
from tests.support.git_server import GitServer, skip_reason
from tests.support.loopback import Answer, Request, closed_port, dead_endpoint

pytestmark = pytest.mark.skipif(bool(skip_reason()), reason=skip_reason())

Poll = Callable[..., Poller]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    with GitServer(tmp_path / "git") as server:
        yield server


@pytest.fixture
def poll() -> Iterator[Poll]:
    """
    Make pollers for a repository; variables come after it.
    """
    made: list[Poller] = []

    def make(repo: str, ref: str = "main", **variables: str) -> Poller:
        _, options, _ = given(repo, GITSYNC_REF=ref, **variables)
        poller = make_poller(options, make_access(repo, GITSYNC_REF=ref, **variables))
        assert poller is not None
        made.append(poller)
        return poller

    yield make
    for poller in made:
        poller.close()


def error_of(poller: Poller) -> SidecarError:
    with pytest.raises(SidecarError) as raised:
        poller.commit(Fence())
    return raised.value


def posts(request: Request) -> bool:
    return request.method == "POST"


# --- what it says


@pytest.mark.parametrize("version", [2, 0])
@pytest.mark.parametrize(
    "ref", ["HEAD", "main", "refs/heads/main", "heads/main", "annotated", "light", "feature/x"]
)
def test_says_what_git_says(server: GitServer, poll: Poll, ref: str, version: int) -> None:
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


def without_version_2(server: GitServer) -> Callable[[faults.Exchange], None]:
    """
    A server that has never heard of version 2.
    """

    def fault(exchange: faults.Exchange) -> None:
        exchange.request.headers.pop("git-protocol", None)
        exchange.send(exchange.good())

    return fault


def test_a_new_commit_is_seen_and_costs_one_request(server: GitServer, poll: Poll) -> None:
    repository = server.repository()
    poller = poll(server.url())
    expected = [repository.commit({"a.py": "1"})]
    said = [poller.commit(Fence())]
    for number in range(3):
        server.forget()
        expected.append(repository.commit({"a.py": f"{number}"}))
        said.append(poller.commit(Fence()))

    assert expected == said
    assert ["POST"] == [request.method for request in server.requests]


def test_one_connection_serves_all_polls(server: GitServer, poll: Poll) -> None:
    server.repository().commit({"a.py": "1"})
    poller = poll(server.url())

    for _ in range(5):
        poller.commit(Fence())

    assert 1 == len({request.connection for request in server.requests})


def test_a_force_push_is_seen(server: GitServer, poll: Poll) -> None:
    repository = server.repository()
    first = repository.commit({"a.py": "1"})
    repository.commit({"a.py": "2"})
    poller = poll(server.url())
    poller.commit(Fence())

    repository.set_branch("main", first)

    assert first == poller.commit(Fence())


def test_an_older_server_is_polled_by_one_request_too(server: GitServer, poll: Poll) -> None:
    head = server.repository().commit({"a.py": "1"})
    server.inject(without_version_2(server))
    poller = poll(server.url())
    poller.commit(Fence())
    server.forget()

    assert head == poller.commit(Fence())
    assert ["GET"] == [request.method for request in server.requests]


def test_a_slash_at_the_end_of_the_url_does_not_matter(server: GitServer, poll: Poll) -> None:
    head = server.repository().commit({"a.py": "1"})

    assert head == poll(f"{server.url()}/").commit(Fence())


# --- credentials


def test_logs_in_without_being_asked(server: GitServer, poll: Poll) -> None:
    """
    A server that says 403 to who says nothing is no obstacle.
    """
    head = server.repository().commit({"a.py": "1"})
    server.accept(("deploy", "pässword%/+="))
    server.bare_refusal = 403

    poller = poll(server.url(), GITSYNC_USERNAME="deploy", GITSYNC_PASSWORD="pässword%/+=")

    assert head == poller.commit(Fence())
    assert 2 == len(server.requests)


def test_credentials_in_the_url_log_in_and_are_not_shown(server: GitServer, poll: Poll) -> None:
    server.repository().commit({"a.py": "1"})
    server.accept(("deploy", "right"))

    error = error_of(poll(server.url(userinfo="deploy:hunter2")))

    assert "credentials_refused" == error.reason
    assert "hunter2" not in f"{error} {error.advice}"
    assert poll(server.url(userinfo="deploy:right")).commit(Fence())


@pytest.mark.parametrize("refusal", [401, 403])
def test_a_rotation_fails_no_poll(
    server: GitServer, poll: Poll, tmp_path: Path, refusal: int
) -> None:
    head = server.repository().commit({"a.py": "1"})
    server.refusal = refusal
    file = tmp_path / "password"
    poller = poll(server.url(), GITSYNC_USERNAME="deploy", GITSYNC_PASSWORD_FILE=str(file))

    for number in range(5):
        file.write_text(f"password-{number}\n")
        server.accept(("deploy", f"password-{number}"))
        assert head == poller.commit(Fence())


def test_refused_credentials_are_tried_once_a_poll_and_named(server: GitServer, poll: Poll) -> None:
    server.repository().commit({"a.py": "1"})
    server.accept(("deploy", "right"))
    server.refusal = 403
    poller = poll(server.url(), GITSYNC_USERNAME="deploy", GITSYNC_PASSWORD="wrong")

    assert ["credentials_refused"] * 3 == [error_of(poller).reason for _ in range(3)]
    assert 3 == len(server.requests)


def test_credentials_that_lost_their_rights_are_not_held(
    server: GitServer, poll: Poll, tmp_path: Path
) -> None:
    """
    Forges say 404 of a repository that one may not see.
    """
    head = server.repository().commit({"a.py": "1"})
    server.accept(("deploy", "old"), ("deploy", "new"))
    file = tmp_path / "password"
    file.write_text("old")
    poller = poll(server.url(), GITSYNC_USERNAME="deploy", GITSYNC_PASSWORD_FILE=str(file))
    poller.commit(Fence())
    old = basic("deploy", "old")
    server.inject(
        faults.answer_with(Answer(404)), lambda request: request.headers["authorization"] == old
    )
    file.write_text("new")

    assert "repository_not_found" == error_of(poller).reason
    assert head == poller.commit(Fence())


def test_credentials_that_end_are_asked_for_anew(server: GitServer) -> None:
    """
    A signature of CodeCommit is good for minutes.
    """
    server.repository().commit({"a.py": "1"})
    sessions = Sessions(time.time() - 1, time.time() + 3600)
    poller = HttpPoller(urlsplit(server.url()), "main", Way(), cast(Access, sessions))

    for _ in range(3):
        poller.commit(Fence())

    poller.close()
    used = [request.headers["authorization"] for request in server.requests]
    assert [basic(f"session-{number}", "signature") for number in (1, 2, 2, 2)] == used


class Sessions:
    """
    Credentials that end at the given moments.
    """

    def __init__(self, *ends_at: float) -> None:
        self._ends_at = list(ends_at)
        self._asked = 0

    def credential(self, url: str, fence: Fence) -> Credential:
        self._asked += 1
        return Credential(f"session-{self._asked}", "signature", self._ends_at.pop(0))


def test_who_does_not_log_in_is_told_so(server: GitServer, poll: Poll) -> None:
    server.repository().commit({"a.py": "1"})
    server.accept(("deploy", "right"))

    error = error_of(poll(server.url()))

    assert "login_missing" == error.reason
    assert "GIT_SYNC_WRAPPER_CREDENTIALS" in error.advice


def test_a_password_that_was_encoded_twice_is_decoded_when_refused(
    server: GitServer, poll: Poll
) -> None:
    head = server.repository().commit({"a.py": "1"})
    server.accept(("deploy", "right"))
    poller = poll(server.url(), GITSYNC_USERNAME="deploy", GITSYNC_PASSWORD="cmlnaHQ=")

    assert "credentials_refused" == error_of(poller).reason
    assert head == poller.commit(Fence())


# --- how it goes out


def test_trusts_the_given_authority_only(tmp_path: Path, poll: Poll) -> None:
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


def test_a_proxy_leads_to_a_server_over_tls(tmp_path: Path, poll: Poll) -> None:
    context, authority = self_signed(tmp_path / "tls", "git.example.com")
    with (
        GitServer(tmp_path / "git", tls=context) as server,
        FakeProxy(server.port) as proxy,
    ):
        head = server.repository().commit({"a.py": "1"})
        poller = poll(
            "https://git.example.com/dags.git",
            HTTPS_PROXY=proxy.endpoint,
            GIT_SSL_CAINFO=str(authority),
        )

        assert [head, head] == [poller.commit(Fence()) for _ in range(2)]
        assert ["git.example.com:443"] == proxy.asked


def test_a_proxy_is_asked_for_the_whole_url_over_http(server: GitServer, poll: Poll) -> None:
    """
    The server of the test stands for the proxy, with the password that is for it.
    """
    poller = poll(
        "http://git.example.com/dags.git", http_proxy=f"http://me:pw@127.0.0.1:{server.port}"
    )

    error_of(poller)

    (request,) = server.requests
    assert request.target.startswith("http://git.example.com/dags.git/info/refs")
    assert "Basic bWU6cHc=" == request.headers["proxy-authorization"]
    assert "git.example.com" == request.headers["host"]


def test_own_headers_are_sent(server: GitServer, poll: Poll) -> None:
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
def test_what_git_would_do_otherwise_is_left_to_git(repo: str, variables: dict[str, str]) -> None:
    _, options, _ = given(repo, **variables)

    assert make_poller(options, make_access(repo, **variables)) is None


# --- redirects


def redirect(to: str) -> Callable[[faults.Exchange], None]:
    return faults.answer_with(Answer(301, {"Location": to}))


def test_a_repository_that_moved_on_its_server_is_followed(server: GitServer, poll: Poll) -> None:
    head = server.repository("new.git").commit({"a.py": "1"})
    server.inject(
        redirect("/new.git/info/refs?service=git-upload-pack"), lambda r: "/old" in r.path
    )
    poller = poll(server.url("old"))

    assert [head, head] == [poller.commit(Fence()) for _ in range(2)]


@pytest.mark.parametrize(
    "to",
    [
        "http://127.0.0.1:1/dags.git/info/refs?service=git-upload-pack",
        "https://evil.example/dags.git/info/refs?service=git-upload-pack",
        "/login",
        "",
    ],
)
def test_credentials_are_not_taken_elsewhere(server: GitServer, poll: Poll, to: str) -> None:
    server.inject(redirect(to))
    poller = poll(server.url(), GITSYNC_USERNAME="deploy", GITSYNC_PASSWORD="secret")

    assert "redirect_refused" == error_of(poller).reason
    assert 1 == len(server.requests)


def test_a_circle_of_redirects_ends(server: GitServer, poll: Poll) -> None:
    here = "/dags.git/info/refs?service=git-upload-pack"
    server.inject(redirect(here))

    assert "redirect_refused" == error_of(poll(server.url())).reason


# --- faults


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (404, "repository_not_found"),
        (429, "throttled"),
        (503, "throttled"),
        (500, "server_error"),
        (418, "server_error"),
    ],
)
def test_each_answer_has_its_reason(
    server: GitServer, poll: Poll, status: int, reason: str
) -> None:
    server.inject(faults.answer_with(Answer(status)))

    error = error_of(poll(server.url()))

    assert (reason, True) == (error.reason, str(status) in error.message)
    assert error.advice


def test_after_a_failure_all_is_asked_anew(server: GitServer, poll: Poll) -> None:
    """
    The server may be another one by then.
    """
    head = server.repository().commit({"a.py": "1"})
    poller = poll(server.url())
    poller.commit(Fence())
    server.inject(faults.answer_with(Answer(404)), times=1)
    error_of(poller)
    server.forget()

    assert head == poller.commit(Fence())
    assert ["GET", "POST"] == [request.method for request in server.requests]


def test_a_repository_that_moves_back_is_found(server: GitServer, poll: Poll) -> None:
    head = server.repository("new.git").commit({"a.py": "1"})
    server.inject(
        redirect("/new.git/info/refs?service=git-upload-pack"), lambda r: "/old" in r.path, times=1
    )
    poller = poll(server.url("old.git"))
    assert head == poller.commit(Fence())
    (server.folder / "new.git").rename(server.folder / "old.git")

    assert "repository_not_found" == error_of(poller).reason
    assert head == poller.commit(Fence())


def test_a_ref_that_is_gone_is_named(server: GitServer, poll: Poll) -> None:
    repository = server.repository()
    repository.commit({"a.py": "1"})
    poller = poll(server.url())
    poller.commit(Fence())

    repository.delete_branch("main")

    error = error_of(poller)
    assert ("ref_not_found", True) == (error.reason, "main" in error.message)
    head = repository.commit({"a.py": "2"})
    assert head == poller.commit(Fence())


def test_a_repository_without_commits_has_no_head(server: GitServer, poll: Poll) -> None:
    server.repository()

    assert "ref_not_found" == error_of(poll(server.url(), "HEAD")).reason


def test_a_page_for_people_is_not_taken_for_git(server: GitServer, poll: Poll) -> None:
    page = Answer(200, {"Content-Type": "text/html"}, b"<html>Sign in</html>")
    server.inject(faults.answer_with(page))

    assert "not_a_git_server" == error_of(poll(server.url())).reason


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
def test_a_broken_answer_fails_one_poll_only(
    server: GitServer, poll: Poll, fault: faults.Fault, at: str
) -> None:
    head = server.repository().commit({"a.py": "1"})
    poller = poll(server.url())
    server.inject(fault, lambda request: request.method == at)

    assert error_of(poller).reason in ("remote_unreachable", "not_a_git_server")
    server.heal()
    assert head == poller.commit(Fence())


@pytest.mark.parametrize(
    "fault",
    [faults.chunked(), faults.unframed(), faults.close_after(), faults.close_silently()],
    ids=["chunked", "unframed", "close", "silent close"],
)
def test_every_way_to_end_an_answer_is_understood(
    server: GitServer, poll: Poll, fault: faults.Fault
) -> None:
    head = server.repository().commit({"a.py": "1"})
    server.inject(fault)
    poller = poll(server.url())

    assert [head] * 3 == [poller.commit(Fence()) for _ in range(3)]


def test_a_server_that_restarts_between_polls_is_no_failure(server: GitServer, poll: Poll) -> None:
    head = server.repository().commit({"a.py": "1"})
    poller = poll(server.url())
    poller.commit(Fence())

    server.stop()
    server.start()

    assert head == poller.commit(Fence())


def test_a_server_that_is_down_is_unreachable(poll: Poll) -> None:
    error = error_of(poll(f"http://127.0.0.1:{closed_port()}/dags.git"))

    assert ("remote_unreachable", True) == (error.reason, "Connection refused" in error.message)


def test_a_name_that_does_not_resolve_is_named(poll: Poll) -> None:
    error = error_of(poll("http://nobody.invalid/dags.git"))

    assert ("name_unresolved", True) == (error.reason, "nobody.invalid" in error.message)


@pytest.mark.parametrize("repo", ["http://a..b/x", "http://host/p\u00e4th", "http://host/a b"])
def test_an_odd_url_is_an_error_and_no_bug(poll: Poll, repo: str) -> None:
    assert error_of(poll(repo, http_proxy="")).reason


def test_a_silent_server_is_not_waited_for(poll: Poll, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "ANSWER_SECONDS", 0.2)
    with dead_endpoint() as endpoint:
        assert "remote_timeout" == error_of(poll(f"{endpoint}/dags.git")).reason


def test_an_answer_that_drips_is_not_waited_for(
    server: GitServer, poll: Poll, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "ANSWER_SECONDS", 0.2)
    server.repository().commit({"a.py": "1"})
    server.inject(faults.drip(1, 0.05))

    assert "remote_timeout" == error_of(poll(server.url())).reason


def test_a_revoked_fence_ends_the_wait(server: GitServer, poll: Poll) -> None:
    server.repository().commit({"a.py": "1"})
    server.inject(faults.hang())
    poller, fence = poll(server.url()), Fence()
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


def test_a_connection_that_was_idle_for_long_is_not_trusted(
    server: GitServer, poll: Poll, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.repository().commit({"a.py": "1"})
    poller = poll(server.url())
    poller.commit(Fence())
    monkeypatch.setattr(remote, "IDLE_SECONDS", 0.0)

    poller.commit(Fence())

    assert 2 == len({request.connection for request in server.requests})


def test_polls_leave_nothing_open(server: GitServer, poll: Poll) -> None:
    server.repository().commit({"a.py": "1"})
    poller = poll(server.url())
    poller.commit(Fence())
    assert isinstance(poller, HttpPoller)

    poller.close()

    assert poller._remote._socket is None
