"""
How a process fetches, keeps and forgets its credentials.

Some tests run the real child; the others replace the interpreter with a fake.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar_runtime.aws.credentials import (
    ADVICE,
    REFRESH_BEFORE_SECONDS,
    REFRESH_RETRY_SECONDS,
    Chain,
    CredentialsError,
)
from sidecar_runtime.fence import Fence
from tests.runtime.aws.fake_chain import FakeChain
from tests.runtime.recording import Log
from tests.support.machine.clocks import Clock
from tests.support.raising import raised


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
def chain(child: FakeChain, clock: Clock, fence: Fence) -> Chain:
    """A chain whose credentials expire in an hour."""
    child.finds(expires_at=clock.seconds + 3600)
    chain = Chain()
    chain.current(fence)
    return chain


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that sets environment variables for the real child."""

    def set_all(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_all


# --- with the real child


@pytest.mark.parametrize("name", ["AccessKeyId", "SessionToken"])
def test_does_not_show_credentials_that_are_invalid_in_a_header_to_sts(
    environ: Callable[..., None], tmp_path: Path, name: str
) -> None:
    """The error of http.client quotes the header that it refuses."""
    keys = {"Version": 1, "AccessKeyId": "AKID", "SecretAccessKey": "x", "SessionToken": "y"}
    (tmp_path / "answer").write_text(json.dumps(keys | {name: "s3cr3t\n"}))
    (tmp_path / "config").write_text(
        "[default]\nregion = eu-west-1\nrole_arn = arn:aws:iam::123456789012:role/dags\n"
        f"source_profile = keys\n[profile keys]\ncredential_process = cat {tmp_path}/answer\n"
    )
    environ(AWS_CONFIG_FILE=str(tmp_path / "config"), AWS_ENDPOINT_URL_STS="http://127.0.0.1:1")

    assert "credentials_invalid" == error_of(Chain()).reason


# --- refresh


def test_credentials_are_refreshed_before_they_expire(
    chain: Chain, child: FakeChain, clock: Clock, fence: Fence
) -> None:
    clock.seconds += 3600 - REFRESH_BEFORE_SECONDS - 1
    child.finds(access_key="NEXT", expires_at=clock.seconds + 3600)

    assert "AKID" == chain.current(fence)[0].access_key
    clock.seconds += 1
    assert "NEXT" == chain.current(fence)[0].access_key
    assert 2 == len(child.calls)


def test_valid_credentials_are_kept_while_a_refresh_fails(
    chain: Chain, child: FakeChain, clock: Clock, fence: Fence, log: Log
) -> None:
    child.fails()
    clock.seconds += 3600 - REFRESH_BEFORE_SECONDS

    for _ in range(3):
        assert "AKID" == chain.current(fence)[0].access_key
    clock.seconds += REFRESH_RETRY_SECONDS
    assert "AKID" == chain.current(fence)[0].access_key

    kept = log.events("credentials_kept")
    assert [("warning", "credentials_unavailable", "STS is silent")] * 2 == [
        (event["level"], event["reason"], event["error"]) for event in kept
    ]
    assert 3 == len(child.calls)


def test_expired_credentials_are_not_kept(
    chain: Chain, child: FakeChain, clock: Clock, fence: Fence
) -> None:
    child.fails()
    clock.seconds += 3600

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
    child: FakeChain, name: str, variable: str, value: str
) -> None:
    child.finds(**{name: value})
    error = error_of(Chain())

    assert "credentials_invalid" == error.reason and "echo -n" in error.advice
    assert error.message.startswith(f"{variable} contains whitespace, ")
