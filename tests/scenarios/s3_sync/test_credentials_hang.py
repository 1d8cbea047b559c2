"""
Services of credentials that are silent, and children that hang: nothing stalls, nothing is left.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenarios.s3_sync.conftest import StartDaemon
from tests.scenarios.s3_sync.identities import ASSUME, NO_KEYS, assert_hides, children, numbers
from tests.support.daemon import Daemon, Settings
from tests.support.fake_aws import FakeSts
from tests.support.fake_s3 import FakeS3
from tests.support.faults import hang
from tests.support.loopback import dead_endpoint
from tests.support.waiting import wait_until


def test_secrets_are_hidden_while_the_child_asks(
    start: StartDaemon, sts: FakeSts, irsa: Settings
) -> None:
    sts.inject(hang())
    daemon = start(irsa)
    sts.wait_for(ASSUME)

    assert len(children(daemon.pid)) == 1
    assert_hides(daemon, "service-account-token-1")


@pytest.fixture
def silent_sts(irsa: Settings) -> Iterator[Settings]:
    """The settings of a pod with IRSA whose STS never answers."""
    with dead_endpoint() as endpoint:
        yield irsa | {"AWS_ENDPOINT_URL_STS": endpoint}


def wait_for_child(daemon: Daemon) -> Path:
    """Wait until a child asks for credentials; return its folder in /proc."""
    wait_until(lambda: children(daemon.pid), "the child asks")
    return Path(f"/proc/{children(daemon.pid)[0]}")


def test_a_silent_sts_never_stalls_the_daemon(start: StartDaemon, silent_sts: Settings) -> None:
    daemon = start(silent_sts | {"S3_SYNC_TIMEOUT": "2s"})
    child = wait_for_child(daemon)

    assert daemon.get("/healthz").status == 200
    assert daemon.get("/readyz").status == 503
    failed = daemon.wait_for_event("cycle_failed")

    assert failed["reason"] in ("cycle_timeout", "credentials_unavailable")
    wait_until(lambda: not child.exists(), "the child is gone")
    assert daemon.get("/healthz").status == 200


def test_sigterm_while_sts_is_silent_ends_at_once_and_leaves_no_child(
    start: StartDaemon, silent_sts: Settings
) -> None:
    daemon = start(silent_sts)
    child = wait_for_child(daemon)

    assert daemon.terminate().code == 0
    wait_until(lambda: not child.exists(), "the child is gone")


@pytest.mark.usefixtures("only_in_full")
def test_a_killed_daemon_leaves_no_child(start: StartDaemon, silent_sts: Settings) -> None:
    daemon = start(silent_sts)
    child = wait_for_child(daemon)

    daemon.kill()

    wait_until(lambda: not child.exists(), "the child is gone", 100)


def test_a_silent_metadata_service_is_given_up(start: StartDaemon) -> None:
    """A hop limit of 1 makes IMDS swallow what pods ask."""
    with dead_endpoint() as endpoint:
        settings = NO_KEYS | {
            "AWS_EC2_METADATA_DISABLED": None,
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": endpoint,
        }
        daemon = start(settings)

        failed = daemon.wait_for_event("cycle_failed", timeout_seconds=30)

        assert failed["reason"] in ("credentials_missing", "credentials_unavailable")
        assert daemon.get("/healthz").status == 200


def test_a_hanging_credential_process_leaves_no_orphans(
    s3: FakeS3, start: StartDaemon, tmp_path: Path
) -> None:
    seconds = f"3600.{next(numbers)}{id(s3)}"
    config = tmp_path / "config"
    config.write_text(f"[profile helper]\ncredential_process = /bin/sleep {seconds}\n")
    profile = {"AWS_CONFIG_FILE": str(config), "AWS_PROFILE": "helper"}
    daemon = start(NO_KEYS | profile | {"S3_SYNC_TIMEOUT": "2s"})
    wait_until(lambda: processes(seconds), "the helper runs")

    daemon.wait_for_event("cycle_failed")
    daemon.terminate()

    wait_until(lambda: not processes(seconds), "the helper is gone", 5)


def processes(argument: str) -> list[int]:
    """The processes that have this as an argument."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if argument.encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


def test_ready_from_disk_while_sts_is_silent(start: StartDaemon, silent_sts: Settings) -> None:
    """A node restarts while the network is down: tasks may start from the files on the volume."""
    start().until_synced().terminate()

    second = start(silent_sts)

    assert second.wait_until_ready().json()["ready"] is True
    assert second.find_events("cycle_failed") == []
