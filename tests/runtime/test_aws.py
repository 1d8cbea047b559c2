"""
How a process fetches and keeps its AWS credentials, and how the child names failures.
"""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE, Popen

import pytest
from botocore import exceptions
from botocore.parsers import ResponseParserError

from sidecar_runtime.aws import EARLY, chain
from sidecar_runtime.aws.chain import MEMORY_BYTES
from sidecar_runtime.aws.credentials import (
    ADVICE,
    REFRESH_BEFORE_SECONDS,
    REFRESH_RETRY_SECONDS,
    Chain,
    CredentialsError,
    _checked,
    ask_child,
    waited_seconds,
)
from sidecar_runtime.fence import Fence
from tests import Facts
from tests.runtime.recording import Log
from tests.support.aws.fake_aws import FakePodIdentity
from tests.support.http.faults import answer_with
from tests.support.http.loopback import Answer, Exchange
from tests.support.machine.clocks import Clock
from tests.support.raising import raised

FOUND: Facts = {"access_key": "AKID", "secret_key": "s3cr3t", "token": None}
FOUND["method"] = "env"
CONFIG = dict.fromkeys(("region", "endpoint_url", "ca_bundle", "addressing_style"))
CONFIG |= dict.fromkeys(("use_fips", "use_dualstack"))


def test_does_not_show_credentials_that_are_invalid_in_a_header_to_sts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fence: Fence
) -> None:
    """The error of http.client quotes the header that it refuses."""
    (tmp_path / "answer").write_text(
        json.dumps(
            {
                "Version": 1,
                "AccessKeyId": "AKID",
                "SecretAccessKey": "x",
                "SessionToken": "s3cr3t\n",
            }
        )
    )
    (tmp_path / "config").write_text(
        "[default]\nregion = eu-west-1\nrole_arn = arn:aws:iam::123456789012:role/dags\n"
        f"source_profile = keys\n[profile keys]\ncredential_process = cat {tmp_path}/answer\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:1")

    error = raised(CredentialsError, Chain().current, fence)

    assert "credentials_invalid" == error.reason and "s3cr3t" not in error.message


FORKS = """
import os, sys; from sidecar_runtime.aws import start_child; sys.modules.update({{{}: None}})
files = [os.open("/dev/null", os.O_RDONLY) for _ in range(300)]
for asked in (b"", b"anonymous"):
    child = start_child(is_fork=True)
    ignored = open(f"/proc/{{child.pid}}/status").read().partition("SigIgn:")[2].split()[0]
    print(int(ignored, 16) & 0x1000, child.communicate(asked, timeout=60))  # SIGPIPE
"""


def test_a_forked_child_is_like_another_and_its_failure_is_told() -> None:
    """And it ends if it is never asked: settings may be wrong."""
    failed, healthy = (
        subprocess.run(
            [sys.executable, "-c", FORKS.format(gone)], capture_output=True, text=True
        )
        for gone in ("'botocore'", "'nothing'")
    )
    assert "ModuleNotFoundError" in failed.stdout
    assert "4096 (b'', b'')\n4096 (b'{\"region\": null" in healthy.stdout


def test_an_endless_answer_takes_no_more_than_a_part_of_the_memory(
    monkeypatch: pytest.MonkeyPatch, fence: Fence, tmp_path: Path
) -> None:
    sent = []

    def fault(exchange: Exchange) -> None:
        exchange.send_head(200, {})
        for _ in range(4):
            exchange.send_bytes(bytes(MEMORY_BYTES))
            sent.append(True)
        exchange.close()

    (tmp_path / "token").touch()
    with FakePodIdentity() as agent:
        agent.inject(answer_with(Answer(403)))
        agent.inject(fault, times=1)
        for name, value in agent.environment(tmp_path / "token").items():
            monkeypatch.setenv(name, value)
        raised(CredentialsError, Chain().current, fence)

    assert agent.requests
    assert len(sent) < 4


def early(code: str) -> Popen[bytes]:
    """Start a child before somebody has a question."""
    child = Popen(
        [sys.executable, "-c", code],
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        start_new_session=True,
    )
    EARLY.append(child)
    return child


def test_a_child_that_failed_before_it_was_asked_is_quoted(fence: Fence) -> None:
    os.waitid(
        os.P_PID, early("raise SystemExit('no module')").pid, os.WEXITED | os.WNOWAIT
    )

    assert (
        "failed: no module" in raised(CredentialsError, Chain().current, fence).message
    )


def test_time_in_which_the_child_waits_for_a_cpu_does_not_count(
    monkeypatch: pytest.MonkeyPatch, fence: Fence
) -> None:
    late = "import time; time.sleep(0.5); print('{}')"
    assert waited_seconds(os.getpid()) > 0
    monkeypatch.setattr(f"{ask_child.__module__}.waited_seconds", lambda _: 9.0)
    early(late)
    assert {} == ask_child("whoami", 0.1, fence)


def test_credentials_are_renewed_before_their_end_and_kept_until_then_if_that_fails(
    monkeypatch: pytest.MonkeyPatch, fence: Fence, log: Log
) -> None:
    clock = Clock()
    chain = Chain()
    # what the child answers; nothing: STS is silent
    keys = ["AKID", "", "", "", "LATER"]

    def ask(*_: object) -> Facts:
        if not (key := keys.pop(0)):
            raise CredentialsError("credentials_unavailable", "STS is silent")
        return {
            "credentials": FOUND
            | {"access_key": key, "expires_at": clock.seconds + 3600},
            **CONFIG,
        }

    monkeypatch.setattr("sidecar_runtime.aws.credentials.ask_child", ask)
    monkeypatch.setattr("time.time", clock)
    waits = [0, 3600 - REFRESH_BEFORE_SECONDS - 1, 1, 0, REFRESH_RETRY_SECONDS]
    left = []
    for seconds in waits:
        clock.seconds += seconds
        assert "AKID" == chain.current(fence)[0].access_key
        left.append(len(keys))

    assert [4, 4, 3, 3, 2] == left
    assert [("warning", "credentials_unavailable", "STS is silent")] * 2 == [
        (e["level"], e["reason"], e["error"]) for e in log.events("credentials_kept")
    ]

    clock.seconds += REFRESH_BEFORE_SECONDS
    assert "STS is silent" == raised(CredentialsError, chain.current, fence).message
    assert "LATER" == chain.current(fence)[0].access_key


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *itertools.product(
            ("access_key", "secret_key", "token"),
            ("s3cr3t\n", "s3cr3t\xa0", "s3cr3t…", "s3\udcffcr3t", "s3\0cr3t"),
        ),
        *itertools.product(("access_key", "secret_key"), ("", None)),
    ],
)
def test_credentials_invalid_in_a_header_are_named_but_not_shown(
    name: str, value: str | None
) -> None:
    error = raised(CredentialsError, _checked, FOUND | {name: value})

    assert "credentials_invalid" == error.reason and "echo -n" in error.advice
    assert error.message.startswith(f"the {name} from env is empty, or contains ")
    assert "s3cr3t" not in error.message


# --- the errors of botocore


def said_by_sts(code: str) -> exceptions.ClientError:
    return exceptions.ClientError(
        {"Error": {"Code": code}}, "AssumeRoleWithWebIdentity"
    )


def said_by_the_agent(status: int | None) -> exceptions.CredentialRetrievalError:
    return exceptions.CredentialRetrievalError(
        provider="container-role",
        error_msg=(
            f"Received non 200 response {status} from container metadata: no"
            if status
            else "y"
        ),
    )


NETWORK = "to that address, and AWS_REGION"
UNREADABLE = ResponseParserError(
    "Unable to parse response (no tag), invalid XML:\n<s3cr3t"
)


@pytest.mark.parametrize(
    ("error", "reason", "remedy"),
    [
        (said_by_sts("AccessDenied"), "credentials_denied", ""),
        (said_by_sts("InvalidIdentityToken"), "credentials_denied", ""),
        (said_by_sts("ExpiredTokenException"), "credentials_expired", ""),
        (exceptions.ClientError({}, "AssumeRole"), "credentials_unavailable", ""),
        (exceptions.ProfileNotFound(profile="x"), "credentials_missing", "AWS_PROFILE"),
        (exceptions.ConfigNotFound(path="x"), "credentials_missing", ""),
        (exceptions.NoCredentialsError(), "credentials_missing", ""),
        (
            exceptions.PartialCredentialsError(provider="env", cred_var="x"),
            "credentials_missing",
            "",
        ),
        (exceptions.SSOTokenLoadError(error_msg="x"), "credentials_expired", ""),
        (RuntimeError("they have ended"), "credentials_expired", ""),
        (
            exceptions.CredentialRetrievalError(
                provider="custom-process", error_msg="exit code 1"
            ),
            "credentials_unavailable",
            "credential_process",
        ),
        (said_by_the_agent(None), "credentials_unavailable", ""),
        (said_by_the_agent(400), "credentials_denied", ""),
        (said_by_the_agent(408), "credentials_unavailable", ""),
        (said_by_the_agent(429), "credentials_unavailable", ""),
        (said_by_the_agent(500), "credentials_unavailable", ""),
        (exceptions.SSLError(endpoint_url="x", error=OSError("y")), "tls_failed", ""),
        (
            exceptions.ConnectTimeoutError(endpoint_url="https://sts.x"),
            "credentials_unavailable",
            NETWORK,
        ),
        (UNREADABLE, "credentials_unavailable", NETWORK),
        (
            FileNotFoundError(2, "No such file", "/var/run/token"),
            "credentials_unavailable",
            "Mount that file",
        ),
    ],
    ids=str,
)
def test_errors_of_botocore_have_a_reason_and_advice_that_blames_what_was_tried(
    error: Exception, reason: str, remedy: str
) -> None:
    advice = chain.remedy(error)
    assert (reason, bool(remedy)) == (chain.classify(error), bool(advice))
    assert remedy in advice
    assert ADVICE[reason]
    assert "s3cr3t" not in chain.shown(error)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_ENDPOINT_URL_STS", "sts.local"),
        ("AWS_ENDPOINT_URL_STS", "http://sts:port"),
        ("AWS_REGION", "eu west-1"),
        ("AWS_MAX_ATTEMPTS", "many"),
    ],
)
def test_a_value_that_botocore_cannot_use_is_quoted_and_no_service_is_blamed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str
) -> None:
    (tmp_path / "token").write_text("a token")
    monkeypatch.setattr(
        "os.environ",
        {
            "AWS_REGION": "eu-west-1",
            "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/dags",
            "AWS_WEB_IDENTITY_TOKEN_FILE": f"{tmp_path}/token",
            name: value,
        },
    )

    *_, last = chain.answers("credentials")
    failure = last["error"]

    assert "credentials_unavailable" == failure["reason"]
    assert value.removeprefix("http://") in failure["message"]
    assert "no service was asked" in failure["advice"]
