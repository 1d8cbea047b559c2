"""
A GitHub App: git-sync requests tokens, git and the poll use them, and old ones are
refused.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support.git.git_sync import GitSite
from tests.support.http.loopback import Answer, LoopbackServer, Request


class GitHubApi(LoopbackServer):
    """An API that issues installation tokens; only the newest is valid."""

    tokens = 0

    def good_answer(self, request: Request) -> Answer:
        self.tokens += 1
        ends_at = datetime.now(UTC) + timedelta(hours=1)
        answer = {"token": self.token, "expires_at": f"{ends_at:%Y-%m-%dT%H:%M:%SZ}"}
        return Answer(
            201, {"Content-Type": "application/json"}, json.dumps(answer).encode()
        )

    @property
    def token(self) -> str:
        return f"ghs_{self.tokens:020}"


@pytest.fixture
def app(here: GitSite) -> Iterator[GitHubApi]:
    """
    An app whose key is in the pod; only its newest token gives access to the
    repository.
    """
    key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    (here.folder / "key.pem").write_bytes(key)
    here.server.refusal = 403
    with GitHubApi() as api:
        here.server.judge = lambda username, password, path: password == api.token
        yield api


def test_no_sync_fails_when_a_token_becomes_invalid(
    here: GitSite, app: GitHubApi
) -> None:
    wrapper = here.publish(
        GITSYNC_GITHUB_BASE_URL=f"{app.endpoint}/",
        GITSYNC_GITHUB_APP_CLIENT_ID="Iv1.0123456789abcdef",
        GITSYNC_GITHUB_APP_INSTALLATION_ID="7",
        GITSYNC_GITHUB_APP_PRIVATE_KEY_FILE=str(here.folder / "key.pem"),
    )
    for number in range(2, 5):
        app.tokens += 1  # git-sync's token becomes invalid
        here.wait_until_shown(here.commit_revision(number), wrapper)

    assert [] == wrapper.find_events("cycle_failed"), wrapper.log()
    assert app.token not in wrapper.log()
