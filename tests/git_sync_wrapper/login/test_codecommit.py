"""
Login to CodeCommit with the pod's identity; the AWS services are fakes on loopback.
"""

import time
from pathlib import Path

import pytest

from git_sync_wrapper.login import sigv4
from git_sync_wrapper.login.codecommit import CodeCommit
from git_sync_wrapper.login.credential import Wanted
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from tests.support.aws.codecommit import judge
from tests.support.aws.fake_aws import (
    IDENTITY_ARN,
    FakePodIdentity,
    FakeSts,
    is_action,
    session_credentials,
    sts_error,
)
from tests.support.raising import raised

HOST = "git-codecommit.eu-central-1.amazonaws.com"
URL = f"https://{HOST}/v1/repos/dags"
WANTED = Wanted.by_url(URL)


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text("token")
    return file


def use(monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("service", [FakeSts, FakePodIdentity], ids=["IRSA", "Pod Identity"])
def test_signs_with_the_identity_of_the_pod(
    monkeypatch: pytest.MonkeyPatch,
    token_file: Path,
    fence: Fence,
    service: type[FakeSts] | type[FakePodIdentity],
) -> None:
    with service() as aws:
        use(monkeypatch, aws.environment(token_file))
        asked_at = int(time.time())

        credential = CodeCommit(None).credential(WANTED, fence)

        accepts = judge(lambda: aws.credentials, HOST, "eu-central-1")
        assert credential is not None
        assert accepts(credential.username, credential.password, "/v1/repos/dags")
        assert credential.expires_at is not None
        signed_at = credential.expires_at - sigv4.VALID_SECONDS
        assert asked_at <= signed_at <= time.time()


def test_a_signature_expires_no_later_than_its_session(
    monkeypatch: pytest.MonkeyPatch, token_file: Path, fence: Fence
) -> None:
    with FakeSts() as sts:
        session = session_credentials(1, valid_seconds=100)
        sts.issue(session)
        use(monkeypatch, sts.environment(token_file))

        credential = CodeCommit(None).credential(WANTED, fence)

    assert credential is not None
    # STS returns whole seconds.
    assert int(session.expires_at.timestamp()) == credential.expires_at


def test_asks_sts_once_and_again_after_a_refusal(
    monkeypatch: pytest.MonkeyPatch, token_file: Path, fence: Fence
) -> None:
    with FakeSts() as sts:
        use(monkeypatch, sts.environment(token_file))
        codecommit = CodeCommit(None)
        names = []
        for number in (1, 2):
            sts.issue(session_credentials(number))
            found = codecommit.credential(WANTED, fence)
            assert found is not None
            names.append(found.username)
        codecommit.refused(Wanted.by_url("https://github.com/x"))
        codecommit.credential(WANTED, fence)
        assert 1 == len(sts.seen(is_action("AssumeRoleWithWebIdentity")))

        codecommit.refused(WANTED)
        found = codecommit.credential(WANTED, fence)

        assert found is not None
        assert names == [names[0]] * 2 and "ASIATESTSESSION00002" in found.username


@pytest.mark.parametrize(
    "url",
    [
        "https://github.com/acme/dags.git",
        f"http://{HOST}/v1/repos/dags",
        f"https://{HOST}.evil.example/v1/repos/dags",
    ],
)
def test_does_not_sign_for_other_servers(url: str, fence: Fence) -> None:
    assert None is CodeCommit(None).credential(Wanted.by_url(url), fence)


def test_signing_for_a_proxy_needs_a_region(monkeypatch: pytest.MonkeyPatch, fence: Fence) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "s3cr3t"}
    proxy = Wanted.by_url("https://git.internal/v1/repos/dags")
    use(monkeypatch, {**keys, "AWS_REGION": "eu-west-1"})
    assert CodeCommit(proxy).credential(proxy, fence)

    monkeypatch.delenv("AWS_REGION")
    error = raised(SidecarError, CodeCommit(proxy).credential, proxy, fence)

    assert ("region_missing", True) == (error.reason, "AWS_REGION" in error.advice)


def test_reports_the_reason_for_a_refused_role(
    monkeypatch: pytest.MonkeyPatch, token_file: Path, fence: Fence
) -> None:
    with FakeSts() as sts:
        use(monkeypatch, sts.environment(token_file))
        sts.inject(sts_error(403, "AccessDenied", "not your role"))

        error = raised(SidecarError, CodeCommit(None).credential, WANTED, fence)

    assert ("credentials_denied", True) == (error.reason, "trust" in error.advice)


def test_explains_a_refusal_with_identity_action_and_repository(
    monkeypatch: pytest.MonkeyPatch, token_file: Path, fence: Fence
) -> None:
    with FakeSts() as sts:
        use(monkeypatch, sts.environment(token_file))

        error = CodeCommit(None).explain(WANTED, fence)

    assert error is not None and "access_denied" == error.reason
    assert IDENTITY_ARN in error.message
    arn = "arn:aws:codecommit:eu-central-1:123456789012:dags"
    assert f"codecommit:GitPull on {arn}" in error.advice
