"""CodeCommit under its real host name, through a proxy to a server on loopback."""

from pathlib import Path

from tests.support.aws.codecommit import judge
from tests.support.aws.fake_aws import IDENTITY_ARN, FakeSts, session_credentials
from tests.support.git.git_sync import git_site
from tests.support.http.certificates import self_signed
from tests.support.http.fake_proxy import FakeProxy

HOST = "git-codecommit.eu-central-1.amazonaws.com"


def test_codecommit_needs_no_setting_and_check_reports_the_signing_identity(
    tmp_path: Path,
) -> None:
    """
    Only the session's signature is accepted; the region is the host's, not the IRSA
    pod's.
    """
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
        given = {
            "GITSYNC_REPO": f"https://{HOST}/v1/repos/dags",
            "GITSYNC_REF": "main",
            "HTTPS_PROXY": proxy.endpoint,
            "GIT_SSL_CAINFO": str(authority),
            **sts.environment(token),
        }

        wrapper = site.wrapper(**given)
        wrapper.wait_for_event("cycle_finished")
        checked = site.wrapper("check", **given)

        assert 0 == checked.wait_for_exit(120).code, checked.log()
        assert "1" == (site.link / "revision.txt").read_text()
        assert [] == wrapper.find_events("cycle_failed"), wrapper.log()
        assert f"credentials    {IDENTITY_ARN}, from " in checked.log()
        assert sts.credentials.secret_key not in checked.log()
        assert sts.credentials.token not in checked.log()
