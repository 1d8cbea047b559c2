"""Silent credential services: the daemon does not stall, and no child process is left."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenarios.s3_sync.conftest import StartDaemon
from tests.scenarios.s3_sync.s3.identities import ASSUME, assert_hides, children
from tests.support.aws.fake_aws import FakeSts
from tests.support.daemon import Daemon, Settings
from tests.support.http.faults import hang
from tests.support.http.loopback import dead_endpoint
from tests.support.waiting import wait_until


def test_hides_the_token_while_a_child_requests_credentials(
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
    """Wait for the child that requests credentials; return its folder in /proc."""
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


def test_sigterm_exits_cleanly_and_leaves_no_child_while_sts_is_silent(
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
