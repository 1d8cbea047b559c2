"""
Reading AWS Secrets Manager.

Some tests run the real child against a fake server; the others replace the child.
"""

import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from git_sync_wrapper.login.credential import Credential, Wanted
from git_sync_wrapper.login.secret import Cleaner, Secret
from git_sync_wrapper.login.secrets_manager import SecretsManager
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from tests.runtime.recording import Log
from tests.support.aws.fake_aws import FakeSts, sts_error
from tests.support.aws.fake_child import FakeChild
from tests.support.http.certificates import self_signed
from tests.support.http.faults import hang
from tests.support.http.loopback import Answer, LoopbackServer, Request
from tests.support.raising import raised

REPO = Wanted.by_url("https://git.example.com/dags.git")
ARN = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:airflow/git-AbCdEf"
KMS_ADVICE = "Allow kms:Decrypt on the KMS key"
PAIR = json.dumps({"username": "deploy", "password": "s3cr3t"})


class FakeSecretsManager(LoopbackServer):
    """A fake GetSecretValue; AWS_ENDPOINT_URL_SECRETS_MANAGER points to it."""

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(tls=tls)
        self.says: dict[str, Any] = {"SecretString": PAIR}
        self.refuses: tuple[str, str] | None = None

    def good_answer(self, request: Request) -> Answer:
        headers = {"Content-Type": "application/x-amz-json-1.1"}
        if self.refuses:
            code, message = self.refuses
            document = {"__type": code, "message": message}
            return Answer(400, headers, json.dumps(document).encode())
        return Answer(200, headers, json.dumps(self.says).encode())


@pytest.fixture
def service(aws: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSecretsManager]:
    """A service that the real child asks with keys from the environment."""
    with FakeSecretsManager() as service:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", service.endpoint)
        monkeypatch.setenv("AWS_REGION", "eu-west-1")
        yield service


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeChild:
    child = FakeChild(tmp_path)
    monkeypatch.setattr("sys.executable", str(child.program))
    return child


def manager(
    secret: str = ARN, username: str = "", stage: str = "AWSCURRENT", **seconds: float
) -> SecretsManager:
    """Make a provider that by default reads the secret at each use."""
    cleaner = Cleaner()
    given = Secret("GITSYNC_USERNAME", cleaner, username) if username else None
    return SecretsManager(secret, stage, REPO, given, cleaner, **{"fresh_seconds": -1.0} | seconds)


def error_of(provider: SecretsManager) -> SidecarError:
    return raised(SidecarError, provider.credential, REPO, Fence())


# --- the real child


@pytest.mark.parametrize(
    ("secret", "region"), [(ARN, "eu-central-1"), ("airflow/git", "eu-west-1")], ids=["ARN", "name"]
)
def test_reads_the_given_stage_in_the_region_of_the_arn_or_the_environment(
    service: FakeSecretsManager, fence: Fence, secret: str, region: str
) -> None:
    found = manager(secret, stage="AWSPREVIOUS").credential(REPO, fence)

    assert Credential("deploy", "s3cr3t") == found
    (request,) = service.requests
    assert {"SecretId": secret, "VersionStage": "AWSPREVIOUS"} == json.loads(request.body)
    assert f"/{region}/secretsmanager/" in request.headers["authorization"]


def test_reads_a_binary_secret(service: FakeSecretsManager, fence: Fence) -> None:
    service.says = {"SecretBinary": "cMOkc3N3b3JkCg=="}  # the API sends base64

    assert Credential("deploy", "pässword") == manager(username="deploy").credential(REPO, fence)


def test_quotes_the_message_of_aws_for_a_refusal(service: FakeSecretsManager) -> None:
    service.refuses = ("ResourceNotFoundException", "Secrets Manager can't find it.")

    error = error_of(manager())

    assert "secret_not_found" == error.reason
    assert ARN in error.message and "can't find it" in error.message


def test_reports_missing_aws_credentials_with_advice() -> None:
    error = error_of(manager())

    assert ("credentials_missing", True) == (error.reason, "IRSA" in error.advice)


def test_a_name_without_a_region_needs_one(
    service: FakeSecretsManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_REGION")

    error = error_of(manager("airflow/git"))

    assert "region_missing" == error.reason
    assert "airflow/git" in error.message
    assert "AWS_REGION" in error.advice


def test_an_unreachable_service_is_named(service: FakeSecretsManager) -> None:
    service.stop()

    error = error_of(manager())

    assert "secret_unavailable" == error.reason
    assert service.endpoint in error.message
    assert "VPC" in error.advice


def test_a_silent_service_is_named(service: FakeSecretsManager) -> None:
    service.inject(hang())

    error = error_of(manager(answer_seconds=0.2))

    assert "secret_unavailable" == error.reason
    assert "no answer within 0.2 s" in error.message


def test_reports_a_certificate_that_is_not_trusted(
    aws: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, authority = self_signed(tmp_path, "localhost")
    with FakeSecretsManager(tls=context) as service:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", service.endpoint)

        error = error_of(manager())
        assert ("tls_failed", True) == (error.reason, "AWS_CA_BUNDLE" in error.advice)

        monkeypatch.setenv("AWS_CA_BUNDLE", str(authority))
        assert Credential("deploy", "s3cr3t") == manager().credential(REPO, Fence())


@pytest.fixture
def sts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSts]:
    """An STS that the real child asks with the token of a service account."""
    (tmp_path / "token").write_text("token")
    with FakeSts() as sts:
        for name, value in sts.environment(tmp_path / "token").items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        yield sts


def test_a_refusal_by_sts_is_not_one_of_the_secret(sts: FakeSts) -> None:
    sts.inject(sts_error(403, "AccessDenied"))

    assert "credentials_denied" == error_of(manager()).reason


def test_an_unreachable_sts_is_not_the_secrets_service(sts: FakeSts) -> None:
    sts.stop()

    assert "credentials_unavailable" == error_of(manager()).reason


# --- formats of a secret


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PAIR, Credential("deploy", "s3cr3t")),
        (json.dumps({"username": "u", "token": "t", "note": "x"}), Credential("u", "t")),
        (
            json.dumps({"GIT_SYNC_USERNAME": "u", "GIT_SYNC_PASSWORD": "p", "n": 1}),
            Credential("u", "p"),
        ),
        (json.dumps({"GITSYNC_USERNAME": "u", "GITSYNC_PASSWORD": "p"}), Credential("u", "p")),
        (json.dumps({"password": "p"}), Credential("given", "p")),
        ("plain\n", Credential("given", "plain")),
        (
            json.dumps({"username": "u\r\n", "password": "Z2hwXzAxMjM0NTY3ODlhYmNkZWZnaGlq"}),
            Credential("u", "ghp_0123456789abcdefghij"),
        ),
    ],
)
def test_reads_json_or_a_password_alone(
    child: FakeChild, fence: Fence, text: str, expected: Credential
) -> None:
    child.says({"text": text})

    assert expected == manager(username="given").credential(REPO, fence)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"user": "hunter2"}', "secret_malformed"),
        ('{"username": "u", "password": 1}', "secret_malformed"),
        ('{"username": "u", "pass', "secret_malformed"),
        ("", "secret_malformed"),
        ('{"password": "p"}', "username_missing"),
        ("plain", "username_missing"),
        ('{"username": "u", "password": "a\\nb"}', "secret_malformed"),
    ],
)
def test_reports_an_unusable_secret_but_hides_it(child: FakeChild, text: str, reason: str) -> None:
    child.says({"text": text})

    error = error_of(manager())

    assert reason == error.reason
    assert error.advice and "hunter2" not in f"{error}{error.advice}"


def test_answers_only_for_the_repositorys_server(child: FakeChild, fence: Fence) -> None:
    child.says({"text": PAIR})

    assert None is manager().credential(Wanted.by_url("https://github.com/x"), fence)
    assert [] == child.calls


# --- rotation and failure


def test_reads_once_per_sync_and_again_after_a_refusal(child: FakeChild, fence: Fence) -> None:
    provider = manager(fresh_seconds=60.0)
    child.says({"text": PAIR})
    for _ in range(5):
        provider.credential(REPO, fence)
    assert 1 == len(child.calls)

    provider.refused(REPO)

    provider.credential(REPO, fence)
    assert 2 == len(child.calls)


def test_uses_the_last_secret_while_it_cannot_be_read_until_a_refusal(
    child: FakeChild, fence: Fence, log: Log
) -> None:
    provider = manager()
    child.says({"text": PAIR})
    provider.credential(REPO, fence)
    child.says({"refused": {"code": "InternalServiceError", "message": "later"}})

    assert Credential("deploy", "s3cr3t") == provider.credential(REPO, fence)
    (kept,) = log.events("secret_kept")
    assert ("warning", "secret_unavailable") == (kept["level"], kept["reason"])

    provider.refused(Wanted.by_url("https://github.com/x"))
    provider.credential(REPO, fence)
    provider.refused(REPO)
    assert "secret_unavailable" == error_of(provider).reason


@pytest.mark.parametrize(
    ("code", "message", "reason", "advised"),
    [
        (
            "AccessDeniedException",
            (
                "User: arn:x is not authorized to perform: secretsmanager:GetSecretValue on "
                f"resource: {ARN} because no policy"
            ),
            "access_denied",
            f"Allow secretsmanager:GetSecretValue on {ARN}",
        ),
        ("AccessDeniedException", "Access to KMS is not allowed", "kms_key_unusable", KMS_ADVICE),
        ("DecryptionFailure", "no", "kms_key_unusable", "Allow kms:Decrypt"),
        (
            "ResourceNotFoundException",
            "Secrets Manager can't find the specified secret value for staging label: X",
            "secret_stage_not_found",
            "GIT_SYNC_WRAPPER_SECRET_STAGE",
        ),
        ("ResourceNotFoundException", "can't find", "secret_not_found", "AWS_REGION"),
        ("InvalidRequestException", "marked for deletion", "secret_not_found", "restore"),
        (
            "InvalidRequestException",
            "You can't access a secret from a different AWS account with the default KMS key",
            "kms_key_unusable",
            "KMS key of your own",
        ),
        ("ThrottlingException", "slow down", "secret_unavailable", "Retried"),
    ],
)
def test_each_refusal_has_a_reason_with_advice_and_the_identity(
    child: FakeChild, code: str, message: str, reason: str, advised: str
) -> None:
    refused = {"code": code, "message": message}
    child.says({"refused": refused, "arn": "arn:aws:sts::123456789012:assumed-role/dags/x"})

    error = error_of(manager())

    assert (reason, True) == (error.reason, advised in error.advice), error.advice
    if code in ("AccessDeniedException", "DecryptionFailure"):
        who = "arn:aws:sts::123456789012:assumed-role/dags/x"
        assert f"{who} is not authorized to perform" in error.message


def test_reports_an_unknown_identity_if_sts_does_not_answer(child: FakeChild) -> None:
    child.says({"refused": {"code": "DecryptionFailure", "message": "no"}})
    child.does('case "$*" in *whoami*) exit 1; esac', f"cat {child.program.parent / 'answer'}")

    said = error_of(manager()).message
    assert said.startswith("an unknown identity (STS did not report it) is not authorized")
