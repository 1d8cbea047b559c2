"""
CodeCommit by its own host name, through a proxy that leads to a server on loopback.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.certificates import self_signed
from tests.support.codecommit import judge
from tests.support.daemon import SidecarProcess
from tests.support.fake_aws import IDENTITY_ARN, FakeSts, session_credentials
from tests.support.fake_proxy import FakeProxy
from tests.support.git_sync import GitSite, git_site

HOST = "git-codecommit.eu-central-1.amazonaws.com"


@dataclass
class CodeCommitSite:
    """
    A repository that only a signature of the session opens, and what a pod with IRSA is given.
    """

    site: GitSite
    sts: FakeSts
    environment: dict[str, str]

    def start(self, *arguments: str) -> SidecarProcess:
        """Start a wrapper with no word about credentials."""
        return self.site.wrapper(
            *arguments,
            GITSYNC_REPO=f"https://{HOST}/v1/repos/dags",
            GITSYNC_REF="main",
            **self.environment,
        )


@pytest.fixture
def codecommit(tmp_path: Path) -> Iterator[CodeCommitSite]:
    context, authority = self_signed(tmp_path / "tls", HOST)
    token = tmp_path / "token"
    token.write_text("web identity")
    with (
        git_site(tmp_path, tls=context) as site,
        FakeProxy(site.server.port) as proxy,
        FakeSts(session_credentials(1)) as sts,
    ):
        site.server.repository("v1/repos/dags").commit({"revision.txt": "1"})
        site.server.judge = judge(lambda: sts.credentials, HOST, "eu-central-1")
        site.server.refusal = 403
        environment = {
            "HTTPS_PROXY": proxy.endpoint,
            "GIT_SSL_CAINFO": str(authority),
            **sts.environment(token),
        }
        yield CodeCommitSite(site, sts, environment)


def test_a_repository_of_codecommit_needs_no_setting(codecommit: CodeCommitSite) -> None:
    """The region comes from the host, not from the environment's."""
    wrapper = codecommit.start()

    wrapper.wait_for_event("cycle_finished")
    assert "1" == (codecommit.site.link / "revision.txt").read_text()
    assert [] == wrapper.find_events("cycle_failed"), wrapper.log()


def test_check_names_the_identity_that_signs_and_no_signature(codecommit: CodeCommitSite) -> None:
    checked = codecommit.start("check")

    assert 0 == checked.wait_for_exit(120).code, checked.log()
    assert f"credentials    {IDENTITY_ARN}, by " in checked.log()
    assert codecommit.sts.credentials.secret_key not in checked.log()
    assert codecommit.sts.credentials.token not in checked.log()
