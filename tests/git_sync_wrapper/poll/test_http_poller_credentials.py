"""
Credentials of a poll: sent, rotated, refused, expired.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import pytest

from git_sync_wrapper.http.route import Way, basic
from git_sync_wrapper.login.access import Access
from git_sync_wrapper.login.credential import Credential
from git_sync_wrapper.poll.http_poller import HttpPoller
from sidecar_runtime.fence import Fence
from tests.git_sync_wrapper.polling import Poll, error_of
from tests.support.git.git_server import GitServer, skip_reason
from tests.support.http import faults
from tests.support.http.loopback import Answer

pytestmark = pytest.mark.skipif(bool(skip_reason()), reason=skip_reason())


def test_sends_credentials_without_a_challenge(server: GitServer, poll: Poll) -> None:
    """The server answers 403 to a request without credentials."""
    head = server.repository().commit({"a.py": "1"})
    server.accept(("deploy", "pässword%/+="))
    server.bare_refusal = 403

    poller = poll(server.url(), GITSYNC_USERNAME="deploy", GITSYNC_PASSWORD="pässword%/+=")

    assert head == poller.commit(Fence())
    assert 2 == len(server.requests)


def test_uses_credentials_of_the_url_without_showing_them(server: GitServer, poll: Poll) -> None:
    server.repository().commit({"a.py": "1"})
    server.accept(("deploy", "right"))

    error = error_of(poll(server.url(userinfo="deploy:hunter2")))

    assert "credentials_refused" == error.reason
    assert "hunter2" not in f"{error} {error.advice}"
    assert poll(server.url(userinfo="deploy:right")).commit(Fence())


@pytest.mark.parametrize("refusal", [401, 403])
def test_polls_succeed_while_the_password_rotates(
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


def test_reports_refused_credentials_after_one_try_per_poll(server: GitServer, poll: Poll) -> None:
    server.repository().commit({"a.py": "1"})
    server.accept(("deploy", "right"))
    server.refusal = 403
    poller = poll(server.url(), GITSYNC_USERNAME="deploy", GITSYNC_PASSWORD="wrong")

    assert ["credentials_refused"] * 3 == [error_of(poller).reason for _ in range(3)]
    assert 3 == len(server.requests)


def test_drops_credentials_that_lost_rights(server: GitServer, poll: Poll, tmp_path: Path) -> None:
    """Forges answer 404 for a repository that the user is not allowed to see."""
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


def test_requests_expired_credentials_again(server: GitServer) -> None:
    """A CodeCommit signature is valid for minutes."""
    server.repository().commit({"a.py": "1"})
    sessions = Sessions(time.time() - 1, time.time() + 3600)
    poller = HttpPoller(urlsplit(server.url()), "main", Way(), cast(Access, sessions))

    for _ in range(3):
        poller.commit(Fence())

    poller.close()
    used = [request.headers["authorization"] for request in server.requests]
    assert [basic(f"session-{number}", "signature") for number in (1, 2, 2, 2)] == used


class Sessions:
    """Credentials that expire at the given times."""

    def __init__(self, *ends_at: float) -> None:
        self._ends_at = list(ends_at)
        self._asked = 0

    def credential(self, url: str, fence: Fence) -> Credential:
        self._asked += 1
        return Credential(f"session-{self._asked}", "signature", self._ends_at.pop(0))


def test_reports_a_missing_login(server: GitServer, poll: Poll) -> None:
    server.repository().commit({"a.py": "1"})
    server.accept(("deploy", "right"))

    error = error_of(poll(server.url()))

    assert "login_missing" == error.reason
    assert "GIT_SYNC_WRAPPER_CREDENTIALS" in error.advice


def test_decodes_a_twice_encoded_password_after_a_refusal(server: GitServer, poll: Poll) -> None:
    head = server.repository().commit({"a.py": "1"})
    server.accept(("deploy", "right"))
    poller = poll(server.url(), GITSYNC_USERNAME="deploy", GITSYNC_PASSWORD="cmlnaHQ=")

    assert "credentials_refused" == error_of(poller).reason
    assert head == poller.commit(Fence())


def test_reads_the_login_again_after_an_answer_that_is_not_from_git(
    server: GitServer, poll: Poll, tmp_path: Path
) -> None:
    """A proxy answers an expired login with its own page, and not with 401."""
    head = server.repository().commit({"a.py": "1"})
    file = tmp_path / "password"
    file.write_text("old")
    server.accept(("deploy", "old"))
    poller = poll(server.url(), GITSYNC_USERNAME="deploy", GITSYNC_PASSWORD_FILE=str(file))
    assert head == poller.commit(Fence())

    page = faults.answer_with(Answer(200, {"Content-Type": "text/html"}, b"<p>Log in</p>"))
    old = basic("deploy", "old")
    server.inject(page, lambda r: r.headers.get("authorization") == old)
    assert "not_a_git_server" == error_of(poller).reason
    file.write_text("new")
    server.accept(("deploy", "new"))

    assert head == poller.commit(Fence())
