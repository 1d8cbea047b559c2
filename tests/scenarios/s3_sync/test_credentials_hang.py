"""
Services of credentials that are silent, and children that hang: nothing stalls, nothing is left.
"""

import contextlib
import json
from pathlib import Path

import pytest

from tests.scenarios.s3_sync.conftest import StartDaemon
from tests.scenarios.s3_sync.identities import (
    ASSUME,
    NO_KEYS,
    accept,
    assert_hides,
    children,
    numbers,
)
from tests.support.fake_aws import FakeSts, session_credentials
from tests.support.fake_s3 import FakeS3, Identity
from tests.support.faults import hang
from tests.support.loopback import dead_endpoint
from tests.support.scripted import FILES, published
from tests.support.waiting import wait_until


def test_secrets_are_hidden_while_the_child_asks(
    s3: FakeS3, target: Path, start: StartDaemon, sts: FakeSts, token_file: Path
) -> None:
    sts.inject(hang())
    daemon = start(s3, target, {**NO_KEYS, **sts.environment(token_file)})
    sts.wait_for(ASSUME)

    assert len(children(daemon.pid)) == 1
    assert_hides(daemon, "service-account-token-1")


def test_a_silent_sts_never_stalls_the_daemon(
    s3: FakeS3, target: Path, start: StartDaemon, token_file: Path
) -> None:
    with dead_endpoint() as endpoint, FakeSts() as sts:
        settings = NO_KEYS | sts.environment(token_file) | {"AWS_ENDPOINT_URL_STS": endpoint}
        daemon = start(s3, target, {**settings, "S3_SYNC_TIMEOUT": "2s"})
        wait_until(lambda: children(daemon.pid), "the child asks")
        child = children(daemon.pid)[0]

        assert daemon.get("/healthz").status == 200
        assert daemon.get("/readyz").status == 503
        failed = daemon.wait_for_event("cycle_failed")

        assert failed["reason"] in ("cycle_timeout", "credentials_unavailable")
        wait_until(lambda: not Path(f"/proc/{child}").exists(), "the child is gone")
        assert daemon.get("/healthz").status == 200


def test_sigterm_while_sts_is_silent_ends_at_once_and_leaves_no_child(
    s3: FakeS3, target: Path, start: StartDaemon, token_file: Path
) -> None:
    with dead_endpoint() as endpoint, FakeSts() as sts:
        settings = NO_KEYS | sts.environment(token_file) | {"AWS_ENDPOINT_URL_STS": endpoint}
        daemon = start(s3, target, settings)
        wait_until(lambda: children(daemon.pid), "the child asks")
        child = children(daemon.pid)[0]

        end = daemon.terminate()

        assert end.code == 0
        assert end.seconds <= 1
        wait_until(lambda: not Path(f"/proc/{child}").exists(), "the child is gone")


@pytest.mark.usefixtures("only_in_full")
def test_a_killed_daemon_leaves_no_child(
    s3: FakeS3, target: Path, start: StartDaemon, token_file: Path
) -> None:
    with dead_endpoint() as endpoint, FakeSts() as sts:
        settings = NO_KEYS | sts.environment(token_file) | {"AWS_ENDPOINT_URL_STS": endpoint}
        daemon = start(s3, target, settings)
        wait_until(lambda: children(daemon.pid), "the child asks")
        child = children(daemon.pid)[0]

        daemon.kill()

        wait_until(lambda: not Path(f"/proc/{child}").exists(), "the child is gone", 100)


def test_a_silent_metadata_service_is_given_up(
    s3: FakeS3, target: Path, start: StartDaemon
) -> None:
    """
    A hop limit of 1 makes IMDS swallow what pods ask.
    """
    with dead_endpoint() as endpoint:
        settings = NO_KEYS | {
            "AWS_EC2_METADATA_DISABLED": None,
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": endpoint,
        }
        daemon = start(s3, target, settings)

        failed = daemon.wait_for_event("cycle_failed", timeout_seconds=30)

        assert failed["reason"] in ("credentials_missing", "credentials_unavailable")
        assert daemon.get("/healthz").status == 200


def test_a_refresh_that_hangs_does_not_stop_credentials_that_are_still_valid(
    s3: FakeS3, target: Path, start: StartDaemon, sts: FakeSts, token_file: Path
) -> None:
    sts.issue(session_credentials(1, valid_seconds=8))
    accept(s3, sts.credentials)
    settings = NO_KEYS | sts.environment(token_file) | {"S3_SYNC_TIMEOUT": "2s"}
    daemon = start(s3, target, settings, interval="0.5")
    daemon.wait_until_synced()
    sts.inject(hang())
    sts.wait_for(ASSUME, count=2)
    s3.put("dags/a.py", b"still going")

    wait_until(lambda: published(target)["a.py"] == b"still going", "the change is there", 5)


def test_a_hanging_credential_process_leaves_no_orphans(
    s3: FakeS3, target: Path, start: StartDaemon, tmp_path: Path
) -> None:
    seconds = f"3600.{next(numbers)}{id(s3)}"
    config = tmp_path / "config"
    config.write_text(f"[profile helper]\ncredential_process = /bin/sleep {seconds}\n")
    profile = {"AWS_CONFIG_FILE": str(config), "AWS_PROFILE": "helper"}
    daemon = start(s3, target, NO_KEYS | profile | {"S3_SYNC_TIMEOUT": "2s"})
    wait_until(lambda: processes(seconds), "the helper runs")

    daemon.wait_for_event("cycle_failed")
    daemon.terminate()

    wait_until(lambda: not processes(seconds), "the helper is gone", 5)


def processes(argument: str) -> list[int]:
    """
    The processes that have this as an argument.
    """
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if argument.encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


def test_a_credential_process_is_asked(
    s3: FakeS3, target: Path, start: StartDaemon, tmp_path: Path
) -> None:
    answer = tmp_path / "answer.json"
    answer.write_text(
        json.dumps({"Version": 1, "AccessKeyId": "AKIAHELPER", "SecretAccessKey": "helper-secret"})
    )
    config = tmp_path / "config"
    config.write_text(f"[profile helper]\ncredential_process = /bin/cat {answer}\n")
    s3.identities = {"AKIAHELPER": Identity("helper-secret")}
    profile = {"AWS_CONFIG_FILE": str(config), "AWS_PROFILE": "helper"}
    daemon = start(s3, target, NO_KEYS | profile)

    daemon.wait_until_synced()

    assert published(target) == FILES
    assert_hides(daemon, "helper-secret")


def test_ready_from_disk_while_sts_is_silent(
    s3: FakeS3, target: Path, start: StartDaemon, token_file: Path
) -> None:
    """
    A node restarts while the network is down: tasks may start from the files on the volume.
    """
    first = start(s3, target)
    first.wait_until_synced()
    first.terminate()
    with dead_endpoint() as endpoint, FakeSts() as sts:
        settings = NO_KEYS | sts.environment(token_file) | {"AWS_ENDPOINT_URL_STS": endpoint}

        second = start(s3, target, settings)

        assert second.wait_until_ready().json()["ready"] is True
        assert second.find_events("cycle_failed") == []
