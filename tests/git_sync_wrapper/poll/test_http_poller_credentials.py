"""
The poll and credentials: sent, rotated, refused, ended.
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
from tests.support import faults
from tests.support.git_server import GitServer, skip_reason
from tests.support.loopback import Answer

pytestmark = pytest.mark.skipif(bool(skip_reason()), reason=skip_reason())


def test_logs_in_without_being_asked(server: GitServer, poll: Poll) -> None:
    """A server that says 403 without a login is no obstacle."""
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
    """Forges say 404 of a repository that one may not see."""
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


def test_credentials_that_expire_are_requested_again(server: GitServer) -> None:
    """A signature of CodeCommit is good for minutes."""
    server.repository().commit({"a.py": "1"})
    sessions = Sessions(time.time() - 1, time.time() + 3600)
    poller = HttpPoller(urlsplit(server.url()), "main", Way(), cast(Access, sessions))

    for _ in range(3):
        poller.commit(Fence())

    poller.close()
    used = [request.headers["authorization"] for request in server.requests]
    assert [basic(f"session-{number}", "signature") for number in (1, 2, 2, 2)] == used


class Sessions:
    """Credentials that end at the given moments."""

    def __init__(self, *ends_at: float) -> None:
        self._ends_at = list(ends_at)
        self._asked = 0

    def credential(self, url: str, fence: Fence) -> Credential:
        self._asked += 1
        return Credential(f"session-{self._asked}", "signature", self._ends_at.pop(0))


def test_a_missing_login_is_reported(server: GitServer, poll: Poll) -> None:
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
