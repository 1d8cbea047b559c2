"""
How a process fetches, keeps and forgets its AWS credentials, and how the child names failures.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from botocore import exceptions

from sidecar_runtime.aws.chain import classify
from sidecar_runtime.aws.credentials import (
    ADVICE,
    REFRESH_BEFORE_SECONDS,
    REFRESH_RETRY_SECONDS,
    Chain,
    CredentialsError,
)
from sidecar_runtime.fence import Fence
from tests.runtime.recording import Log
from tests.support.machine.clocks import Clock
from tests.support.raising import raised

FOUND = {
    "access_key": "AKID",
    "secret_key": "s3cr3t",
    "token": None,
    "expires_at": None,
    "method": "env",
}
CONFIG: dict[str, Any] = {
    **dict.fromkeys(("region", "endpoint_url", "ca_bundle", "addressing_style")),
    **dict.fromkeys(("use_fips", "use_dualstack"), False),
}


class FakeChild:
    """Answers as the child does, with what the test sets."""

    def __init__(self) -> None:
        self.answer: dict[str, Any] | CredentialsError = {}
        self.calls = 0

    def __call__(self, *_: object) -> dict[str, Any]:
        self.calls += 1
        if isinstance(self.answer, CredentialsError):
            raise self.answer
        return {**self.answer}

    def finds(self, **changes: Any) -> None:
        self.answer = {"credentials": FOUND | changes, **CONFIG}

    def fails(self) -> None:
        self.answer = CredentialsError("credentials_unavailable", "STS is silent")


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> FakeChild:
    child = FakeChild()
    monkeypatch.setattr("sidecar_runtime.aws.credentials.ask_child", child)
    return child


def error_of(chain: Chain) -> CredentialsError:
    error = raised(CredentialsError, chain.current, Fence())
    assert error.advice == ADVICE[error.reason]
    assert "s3cr3t" not in error.message
    return error


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A wall clock that the test controls."""
    clock = Clock()
    clock.seconds = 1_700_000_000.0
    monkeypatch.setattr("time.time", clock)
    return clock


@pytest.fixture
def chain(child: FakeChild, clock: Clock, fence: Fence) -> Chain:
    """A chain whose credentials expire in an hour."""
    child.finds(expires_at=clock.seconds + 3600)
    chain = Chain()
    chain.current(fence)
    return chain


def test_does_not_show_credentials_that_are_invalid_in_a_header_to_sts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The error of http.client quotes the header that it refuses."""
    keys = {"Version": 1, "AccessKeyId": "AKID", "SecretAccessKey": "x"}
    (tmp_path / "answer").write_text(json.dumps(keys | {"SessionToken": "s3cr3t\n"}))
    (tmp_path / "config").write_text(
        "[default]\nregion = eu-west-1\nrole_arn = arn:aws:iam::123456789012:role/dags\n"
        f"source_profile = keys\n[profile keys]\ncredential_process = cat {tmp_path}/answer\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:1")

    assert "credentials_invalid" == error_of(Chain()).reason


# --- refresh


def test_credentials_are_renewed_before_their_end_and_kept_until_then_if_that_fails(
    chain: Chain, child: FakeChild, clock: Clock, fence: Fence, log: Log
) -> None:
    child.fails()
    clock.seconds += 3600 - REFRESH_BEFORE_SECONDS - 1
    assert ("AKID", 1) == (chain.current(fence)[0].access_key, child.calls)
    clock.seconds += 1
    for _ in range(3):
        assert "AKID" == chain.current(fence)[0].access_key
    clock.seconds += REFRESH_RETRY_SECONDS
    assert ("AKID", 3) == (chain.current(fence)[0].access_key, child.calls)
    kept = log.events("credentials_kept")
    assert [("warning", "credentials_unavailable", "STS is silent")] * 2 == [
        (event["level"], event["reason"], event["error"]) for event in kept
    ]

    clock.seconds += REFRESH_BEFORE_SECONDS
    assert "STS is silent" == error_of(chain).message
    child.finds(access_key="LATER")
    assert "LATER" == chain.current(fence)[0].access_key


# --- failures of the child


@pytest.mark.parametrize(
    ("name", "variable"),
    [
        ("access_key", "AWS_ACCESS_KEY_ID"),
        ("secret_key", "AWS_SECRET_ACCESS_KEY"),
        ("token", "AWS_SESSION_TOKEN"),
    ],
)
@pytest.mark.parametrize("value", ["s3cr3t\n", "s3cr3t\xa0", "s3cr3t…", "s3\udcffcr3t", "s3\0cr3t"])
def test_credentials_invalid_in_a_header_are_named_but_not_shown(
    child: FakeChild, name: str, variable: str, value: str
) -> None:
    child.finds(**{name: value})
    error = error_of(Chain())

    assert "credentials_invalid" == error.reason and "echo -n" in error.advice
    assert error.message.startswith(f"{variable} contains whitespace, ")


# --- the errors of botocore


def said_by_sts(code: str) -> exceptions.ClientError:
    return exceptions.ClientError({"Error": {"Code": code}}, "AssumeRoleWithWebIdentity")


def said_by_the_agent(status: int | None) -> exceptions.CredentialRetrievalError:
    said = f"Received non 200 response {status} from container metadata: no" if status else "y"
    return exceptions.CredentialRetrievalError(provider="container-role", error_msg=said)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (said_by_sts("AccessDenied"), "credentials_denied"),
        (said_by_sts("InvalidIdentityToken"), "credentials_denied"),
        (said_by_sts("ExpiredTokenException"), "credentials_expired"),
        (said_by_sts("InternalFailure"), "credentials_unavailable"),
        (exceptions.ClientError({}, "AssumeRole"), "credentials_unavailable"),
        (exceptions.ProfileNotFound(profile="x"), "credentials_missing"),
        (exceptions.ConfigNotFound(path="x"), "credentials_missing"),
        (exceptions.NoCredentialsError(), "credentials_missing"),
        (exceptions.PartialCredentialsError(provider="env", cred_var="x"), "credentials_missing"),
        (exceptions.SSOTokenLoadError(error_msg="x"), "credentials_expired"),
        (said_by_the_agent(None), "credentials_unavailable"),
        (said_by_the_agent(400), "credentials_denied"),
        (said_by_the_agent(403), "credentials_denied"),
        (said_by_the_agent(408), "credentials_unavailable"),
        (said_by_the_agent(429), "credentials_unavailable"),
        (said_by_the_agent(500), "credentials_unavailable"),
        (exceptions.SSLError(endpoint_url="x", error=OSError("y")), "tls_failed"),
        (exceptions.EndpointConnectionError(endpoint_url="x"), "credentials_unavailable"),
        (FileNotFoundError(2, "no token file"), "credentials_unavailable"),
    ],
    ids=str,
)
def test_botocore_errors_have_a_reason_with_advice(error: Exception, reason: str) -> None:
    assert reason == classify(error)
    assert ADVICE[reason]
