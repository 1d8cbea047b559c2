"""
Credentials change at run time: no sync fails, although old ones immediately become
invalid.
"""

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Counts
from tests.support.aws.codecommit import judge
from tests.support.aws.fake_aws import FakeSts, session_credentials
from tests.support.git.git_server import GitServer, credentials_of
from tests.support.git.git_sync import GitSite
from tests.support.http.loopback import Answer, Exchange, LoopbackServer, Request
from tests.support.replacing import replace

REGION = "us-east-1"


class AskpassServer(LoopbackServer):
    """
    Answers with the current username and password, in the format of git's credentials.
    """

    username = password = ""

    def good_answer(self, request: Request) -> Answer:
        if credentials_of(request) != ("me", "p@ss"):
            return Answer(401)
        return Answer(
            200,
            {"Content-Type": "text/plain"},
            f"username={self.username}\npassword={self.password}\n".encode(),
        )


def test_no_sync_fails_while_a_slow_askpass_server_rotates(here: GitSite) -> None:
    """git-sync itself waits one second for an answer."""
    here.server.refusal = 403
    with AskpassServer() as askpass:

        def rotate(number: int) -> None:
            askpass.username = f"user-{number}"
            askpass.password = f"password-{number}"
            here.server.accept((askpass.username, askpass.password))

        def late(exchange: Exchange) -> None:
            exchange.pause(1.5)
            exchange.send(exchange.good())

        askpass.inject(late, times=1)
        follow(
            here,
            rotate,
            2,
            GITSYNC_ASKPASS_URL=askpass.endpoint.replace("//", "//me:p%40ss@"),
            GIT_SYNC_WRAPPER_CREDENTIALS="codecommit",
        )


def test_no_sync_fails_while_sts_issues_sessions_and_old_ones_get_403(
    here: GitSite, counts: Counts
) -> None:
    """On AWS a session stays valid until it expires; here it ends with the next one."""
    here.server.refusal = 403
    token = here.folder / "token"
    token.write_text("web identity")
    with FakeSts(session_credentials(1)) as sts:
        here.server.judge = judge(lambda: sts.credentials, "127.0.0.1", REGION)
        follow(
            here,
            lambda number: sts.issue(session_credentials(number)),
            counts.credential_rotations,
            GIT_SYNC_WRAPPER_CREDENTIALS="codecommit",
            **sts.environment(token),
        )


def test_no_sync_fails_while_a_mounted_password_rotates(here: GitSite) -> None:
    file = here.folder / "password"
    here.server.judge = lambda _, password, _path: f"{password}\n" == file.read_text()

    def rotate(number: int) -> None:
        replace(file, f"password-{number}\n")

    follow(here, rotate, 2, GITSYNC_USERNAME="me", GITSYNC_PASSWORD_FILE=str(file))


def follow(
    here: GitSite, rotate: Callable[[int], None], times: int, **settings: str | None
) -> None:
    """
    Rotate and commit `times` times; check that each commit arrives and that no cycle
    fails.
    """
    rotate(1)
    wrapper = here.publish(**settings)
    for number in range(2, 2 + times):
        rotate(number)
        here.wait_until_shown(here.commit_revision(number), wrapper)

    assert [] == wrapper.find_events("cycle_failed"), wrapper.log()


def test_submodules_on_other_servers_use_their_own_credentials(
    here: GitSite, tmp_path: Path
) -> None:
    """The two servers on loopback differ only in their port."""
    with GitServer(tmp_path / "other") as other:
        commit = other.repository("library.git").commit({"library.py": "x = 1\n"})
        other.accept(("library", "other password"))
        here.server.accept(("deploy", "password"))
        here.repository.commit_submodule("library", other.url("library.git"), commit)
        credential = {
            "url": other.endpoint,
            "username": "library\n",
            "password": "other password",
        }
        here.publish(
            GITSYNC_USERNAME="deploy\n",
            GITSYNC_PASSWORD="password\n",
            GITSYNC_CREDENTIAL=json.dumps([credential]),
        )

        assert "x = 1\n" == (here.link / "library/library.py").read_text()


def test_a_refused_password_that_was_encoded_twice_is_named(here: GitSite) -> None:
    here.server.accept(("deploy", "correct horse battery"))
    encoded = base64.b64encode(b"correct horse battery").decode()
    wrapper = here.wrapper(GITSYNC_USERNAME="deploy", GITSYNC_PASSWORD=encoded)

    failed = wrapper.wait_for_event("cycle_failed")

    assert "credentials_refused" == failed["reason"]
    assert "(user deploy, from GITSYNC_PASSWORD)" in failed["error"]
    assert failed["advice"].startswith("GITSYNC_PASSWORD looks encoded twice")


@pytest.mark.parametrize("way", [".netrc", "GIT_CONFIG_COUNT"])
def test_a_login_that_git_itself_finds_serves_polls_and_runs(
    here: GitSite, way: str
) -> None:
    here.server.accept(("deploy", "password"))
    settings = {}
    if way == ".netrc":
        (here.folder / "home").mkdir()
        (here.folder / "home/.netrc").write_text(
            "machine 127.0.0.1 login deploy password password\n"
        )
    else:
        header = f"Authorization: Basic {base64.b64encode(b'deploy:password').decode()}"
        settings = {
            "GIT_CONFIG_KEY_0": "http.extraHeader",
            "GIT_CONFIG_VALUE_0": header,
            way: "1",
        }
    wrapper = here.publish(**settings)
    here.wait_until_shown(here.commit_revision(2), wrapper)

    assert [] == wrapper.find_events("cycle_failed"), wrapper.log()
