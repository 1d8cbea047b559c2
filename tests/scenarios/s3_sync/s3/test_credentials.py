"""
Sources of credentials, their rotation and their silence; no log or answer reveals a
secret, and no child process is left.
"""

from pathlib import Path

import pytest

from tests.scenarios.s3_sync.conftest import StartDaemon
from tests.scenarios.s3_sync.s3.identities import (
    ASSUME,
    NO_KEYS,
    accept,
    assert_hides,
    children,
    numbers,
)
from tests.support.aws.fake_aws import (
    ROLE_ARN,
    CredentialSource,
    FakePodIdentity,
    FakeSts,
    session_credentials,
)
from tests.support.aws.fake_s3 import FakeS3
from tests.support.aws.s3_refusals import signed_by
from tests.support.daemon import Daemon, Settings
from tests.support.http.loopback import Exchange, dead_endpoint
from tests.support.machine.clocks import set_clock
from tests.support.s3_sync.scripted import FILES, published
from tests.support.waiting import wait_until


def rotate(s3: FakeS3, source: CredentialSource, refusal: str) -> None:
    """Hand out new credentials, and let S3 refuse the old ones."""
    old = source.credentials
    new = session_credentials(next(numbers))
    source.issue(new)
    s3.identities = {
        old.access_key: old.identity(refusal),
        new.access_key: new.identity(),
    }


@pytest.mark.parametrize("keys", [{}, NO_KEYS])
def test_reads_a_public_bucket_without_credentials(
    s3: FakeS3, target: Path, start: StartDaemon, keys: Settings
) -> None:
    """AWS keys that the pod has for Airflow are not used."""
    daemon = start({"S3_SYNC_BUCKET_ACCESS": "public", **keys}).until_synced()

    assert (
        0
        == start({"S3_SYNC_BUCKET_ACCESS": "public", **keys}, arguments=("check",))
        .wait_for_exit()
        .code
    )
    assert published(target) == FILES
    assert daemon.find_events("credentials_kept") == []
    assert {None} == {signed_by(request) for request in s3.requests}


def test_pays_for_requests_if_the_setting_says_so(
    s3: FakeS3, start: StartDaemon
) -> None:
    start({"S3_SYNC_BUCKET_ACCESS": "requester-pays"}).until_synced()

    for request in s3.requests:
        assert "requester" == request.headers.get("x-amz-request-payer")
        assert "x-amz-request-payer" in request.headers["authorization"]


def test_syncs_with_irsa_and_hides_its_secrets(
    s3: FakeS3, target: Path, start: StartDaemon, sts: FakeSts, irsa: Settings
) -> None:
    accept(s3, sts.credentials)
    daemon = start(irsa).until_synced()

    assert published(target) == FILES
    assert len(sts.seen(ASSUME)) == 1
    call = sts.seen(ASSUME)[0].form
    assert call["RoleArn"] == ROLE_ARN
    assert call["WebIdentityToken"] == "service-account-token-1"
    secrets = (
        sts.credentials.secret_key,
        sts.credentials.token,
        "service-account-token-1",
    )
    assert_hides(daemon, *secrets)
    assert len(sts.seen(ASSUME)) == 1


def test_connects_to_s3_while_sts_is_asked(
    s3: FakeS3, start: StartDaemon, sts: FakeSts, irsa: Settings
) -> None:
    accept(s3, sts.credentials)
    connected = []

    def answer_late(exchange: Exchange) -> None:
        wait_until(lambda: s3.connections == 1, "a connection", 10)
        connected.append(len(s3.requests))
        exchange.send(exchange.good())

    sts.inject(answer_late, times=1)
    start(irsa).until_synced()

    assert [0] == connected
    assert 1 == s3.requests[0].connection


def test_syncs_with_pod_identity_and_follows_its_rotation(
    s3: FakeS3, target: Path, start: StartDaemon, token_file: Path
) -> None:
    with FakePodIdentity(authorization="service-account-token-1") as agent:
        accept(s3, agent.credentials)
        daemon = start({**NO_KEYS, **agent.environment(token_file)}).until_synced()
        assert published(target) == FILES
        secrets = (
            agent.credentials.secret_key,
            agent.credentials.token,
            token_file.read_text(),
        )
        assert_hides(daemon, *secrets)

        agent.authorization = "service-account-token-2"
        token_file.write_text("service-account-token-2")
        rotate(s3, agent, "ExpiredToken")

        assert daemon.sync()["event"] == "cycle_finished"
        assert agent.requests[-1].headers["authorization"] == "service-account-token-2"


@pytest.mark.usefixtures("only_in_full")
def test_valid_credentials_are_kept_while_their_source_refuses_or_is_down(
    s3: FakeS3, start: StartDaemon, token_file: Path, tmp_path: Path
) -> None:
    clock = tmp_path / "clock"
    with FakePodIdentity() as agent:
        accept(s3, agent.credentials)
        daemon = start(
            NO_KEYS | agent.environment(token_file) | set_clock(clock, "+0m")
        ).until_synced()
        agent.authorization = "of another pod"
        set_clock(clock, "+50m")  # of an hour: a renewal is due

        assert "cycle_finished" == daemon.sync()["event"]
        assert daemon.wait_for_event("credentials_kept")["error"]
        for reason in ("credentials_denied", "credentials_unavailable"):
            daemon.terminate()
            daemon.environment.pop("LD_PRELOAD", "")  # the clock is right again
            failed = daemon.start().wait_for_event("cycle_failed")
            assert reason == failed["reason"], failed["error"]
            assert daemon.is_ready()
            agent.stop()
        agent.start()


# --- silent credential services


def wait_for_child(daemon: Daemon) -> Path:
    """Wait for the child that requests credentials; return its folder in /proc."""
    wait_until(lambda: children(daemon.pid), "the child asks")
    return Path(f"/proc/{children(daemon.pid)[0]}")


def test_a_silent_sts_never_stalls_the_daemon_and_leaves_no_child(
    start: StartDaemon, irsa: Settings
) -> None:
    with dead_endpoint() as endpoint:
        daemon = start(
            irsa | {"AWS_ENDPOINT_URL_STS": endpoint, "S3_SYNC_TIMEOUT": "2s"},
            interval="0.2",
        )
        child = wait_for_child(daemon)
        assert_hides(daemon, "service-account-token-1")
        assert daemon.is_alive()
        assert daemon.get("/readyz").status == 503
        assert daemon.wait_for_event("cycle_failed")["reason"] in (
            "cycle_timeout",
            "credentials_unavailable",
        )
        wait_until(lambda: not child.exists(), "the child is gone")
        assert daemon.is_alive()

        child = wait_for_child(daemon)
        assert daemon.terminate().code == 0
        wait_until(lambda: not child.exists(), "the child is gone")
