"""
`s3-sync check` as a process, beside a daemon and with silent servers.

tests/s3_sync/test_check.py tests its individual steps.
"""

import signal
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import pytest

from tests.scenarios.s3_sync.conftest import StartDaemon
from tests.scenarios.s3_sync.s3.identities import NO_KEYS
from tests.support.aws.fake_aws import IDENTITY_ARN, FakeSts
from tests.support.aws.fake_s3 import SECRET_KEY, FakeS3, error, is_get
from tests.support.http.loopback import dead_endpoint
from tests.support.program import own_port
from tests.support.s3_sync.scripted import published
from tests.support.s3_sync.snapshots import SNAPSHOT

BUCKET_ARN = "arn:aws:s3:::dags-bucket"


class Check(Protocol):
    """The value of the fixture `check`: runs `s3-sync check` and returns its output."""

    def __call__(
        self,
        code: int,
        settings: Mapping[str, str | None] | None = None,
        timeout_seconds: float = 30,
    ) -> str: ...


@pytest.fixture
def check(start: StartDaemon) -> Check:
    """A function that runs a check, which must exit with the given code."""

    def run(
        code: int, settings: Mapping[str, str | None] | None = None, timeout_seconds: float = 30
    ) -> str:
        daemon = start(settings, arguments=("check",))
        end = daemon.wait_for_exit(timeout_seconds)
        text = daemon.log()
        assert end.code == code, text
        assert "Traceback" not in text
        assert SECRET_KEY not in text
        return text

    return run


def test_succeeds_with_working_settings_and_publishes_nothing(check: Check, target: Path) -> None:
    with FakeSts() as sts:
        said = check(0, {"AWS_ENDPOINT_URL_STS": sts.endpoint})

    for fact in (IDENTITY_ARN, "s3:ListBucket", "s3:GetObject", str(target)):
        assert fact in said
    assert published(target) == {}


@pytest.fixture
def port() -> dict[str, str]:
    """A fixed port, which a daemon and its check share."""
    return {"S3_SYNC_HTTP_BIND": f"127.0.0.1:{own_port()}"}


def test_works_beside_a_running_daemon(
    check: Check, start: StartDaemon, port: dict[str, str]
) -> None:
    daemon = start(port).until_synced()

    assert f"has published {daemon.status()['revision']}" in check(0, port)

    assert daemon.sync()["event"] == "cycle_finished"


def test_reports_files_that_the_daemon_is_missing(
    check: Check, start: StartDaemon, s3: FakeS3, port: dict[str, str]
) -> None:
    s3.inject(error(403, "AccessDenied"), is_get("dags/pkg/b.py"))
    start(port).until_synced()
    s3.heal()

    said = check(3, port)

    assert "access_denied_get" in said
    assert "1 file is missing or out of date" in said


@pytest.mark.parametrize("page", ["true", "false"])
def test_reports_a_revision_that_the_gate_refuses(
    check: Check, start: StartDaemon, s3: FakeS3, port: dict[str, str], page: str
) -> None:
    settings = {**port, **SNAPSHOT, "S3_SYNC_GATE": "syntax", "S3_SYNC_STATUS_PAGE": page}
    daemon = start(settings).until_synced()
    s3.put("dags/a.py", b"x = (\n")
    daemon.sync()

    assert "revision_refused" in check(3, settings)


def test_fails_when_the_daemon_hangs(
    check: Check, start: StartDaemon, port: dict[str, str]
) -> None:
    daemon = start(port).until_synced()
    daemon.send_signal(signal.SIGSTOP)
    try:
        assert "accepts connections" in check(3, port)
    finally:
        daemon.send_signal(signal.SIGCONT)


def test_sigterm_stops_a_waiting_check_with_exit_code_143(start: StartDaemon) -> None:
    """It ends although a server has not answered."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(30)
        settings = NO_KEYS | {
            "AWS_EC2_METADATA_DISABLED": "false",
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "AWS_METADATA_SERVICE_TIMEOUT": "60",
        }
        daemon = start(settings, arguments=("check",))
        asked, _ = silent.accept()
        with asked:
            asked.settimeout(30)
            assert asked.recv(1 << 16)
            assert 143 == daemon.terminate().code
            assert not asked.recv(1), "the connection is still open"


@pytest.mark.usefixtures("only_in_full")
def test_fails_when_the_endpoint_does_not_answer(check: Check) -> None:
    with dead_endpoint() as endpoint:
        said = check(3, {"AWS_ENDPOINT_URL": endpoint}, 60)

    assert endpoint.removeprefix("http://") in said


def test_does_not_hang_when_the_metadata_service_is_silent(check: Check) -> None:
    """A hop limit of 1 makes IMDS silent in a pod."""
    with dead_endpoint() as endpoint:
        metadata = {
            "AWS_EC2_METADATA_DISABLED": None,
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": endpoint,
        }
        said = check(3, NO_KEYS | metadata)

    assert "credentials" in said
