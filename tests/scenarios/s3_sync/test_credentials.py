"""Where credentials come from, how they are renewed, and that nobody ever sees them."""

import time
from pathlib import Path

import pytest

from tests.scenarios.s3_sync.conftest import StartDaemon
from tests.scenarios.s3_sync.identities import ASSUME, NO_KEYS, accept, assert_hides, numbers
from tests.support.daemon import Settings
from tests.support.fake_aws import (
    ROLE_ARN,
    CredentialSource,
    FakeImds,
    FakePodIdentity,
    FakeSts,
    session_credentials,
    sts_error,
)
from tests.support.fake_s3 import (
    ACCESS_KEY,
    SECRET_KEY,
    FakeS3,
    is_list,
)
from tests.support.faults import answer_with
from tests.support.loopback import Answer, Exchange
from tests.support.program import own_port
from tests.support.s3_refusals import Identity, signed_by, signed_region
from tests.support.scripted import FILES, published
from tests.support.waiting import wait_until


def rotate(s3: FakeS3, source: CredentialSource, refusal: str, seconds: float = 3600) -> None:
    """Hand out new credentials, and let S3 refuse the old ones."""
    old, new = source.credentials, session_credentials(next(numbers), seconds)
    source.issue(new)
    s3.identities = {old.access_key: old.identity(refusal), new.access_key: new.identity()}


def test_keys_of_the_environment(s3: FakeS3, target: Path, start: StartDaemon) -> None:
    s3.identities = {ACCESS_KEY: Identity(SECRET_KEY)}
    daemon = start().until_synced()

    assert published(target) == FILES
    assert_hides(daemon, SECRET_KEY)


@pytest.mark.parametrize("keys", [{}, NO_KEYS], ids=["with keys", "without"])
def test_a_public_bucket_is_read_by_nobody(
    s3: FakeS3, target: Path, start: StartDaemon, keys: Settings
) -> None:
    """Keys that are there for Airflow go nowhere."""
    daemon = start({"S3_SYNC_BUCKET_ACCESS": "public", **keys}).until_synced()
    checked = start({"S3_SYNC_BUCKET_ACCESS": "public", **keys}, arguments=("check",))

    assert 0 == checked.wait_for_exit(20).code
    assert published(target) == FILES
    assert daemon.find_events("credentials_kept") == []
    assert {None} == {signed_by(request) for request in s3.requests}


def test_a_bucket_is_never_read_without_credentials_by_accident(
    s3: FakeS3, start: StartDaemon
) -> None:
    failed = start(NO_KEYS).wait_for_event("cycle_failed")

    assert "credentials_missing" == failed["reason"]
    assert [] == s3.requests


def test_who_pays_is_said_where_the_reader_does(s3: FakeS3, start: StartDaemon) -> None:
    s3.identities = {ACCESS_KEY: Identity(SECRET_KEY)}
    start({"S3_SYNC_BUCKET_ACCESS": "requester-pays"}).until_synced()
    start({"S3_SYNC_BUCKET_ACCESS": "requester-pays"}, arguments=("check",)).wait_for_exit(20)

    reads = s3.seen(lambda request: request.method == "GET")  # the other is STS's
    assert {"requester"} == {one.headers.get("x-amz-request-payer") for one in reads}


def test_session_token_of_the_environment(s3: FakeS3, target: Path, start: StartDaemon) -> None:
    s3.identities = {ACCESS_KEY: Identity(SECRET_KEY, token="session/token+==")}
    daemon = start({"AWS_SESSION_TOKEN": "session/token+=="}).until_synced()

    assert published(target) == FILES
    assert_hides(daemon, SECRET_KEY, "session/token+==")


OLD, NEW = ("AKIAOLD", "old-secret-of-the-profile"), ("AKIANEW", "new-secret-of-the-profile")


def write_profile(path: Path, access_key: str, secret_key: str) -> None:
    """Replace a shared credentials file as the kubelet and people do: by rename."""
    text = f"[etl]\naws_access_key_id = {access_key}\naws_secret_access_key = {secret_key}\n"
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").rename(path)


@pytest.fixture
def profile(tmp_path: Path) -> Settings:
    """The settings of a daemon whose credentials file has the old keys."""
    file = tmp_path / "credentials"
    write_profile(file, *OLD)
    return NO_KEYS | {"AWS_SHARED_CREDENTIALS_FILE": str(file), "AWS_PROFILE": "etl"}


@pytest.mark.parametrize("refusal", ["InvalidAccessKeyId", "ExpiredToken"])
def test_a_profile_rotated_while_running_is_read_again(
    s3: FakeS3, start: StartDaemon, tmp_path: Path, profile: Settings, refusal: str
) -> None:
    s3.identities = {OLD[0]: Identity(OLD[1])}
    daemon = start(profile).until_synced()
    write_profile(tmp_path / "credentials", *NEW)
    s3.identities = {OLD[0]: Identity(OLD[1], refusal=refusal), NEW[0]: Identity(NEW[1])}
    s3.put("dags/a.py", b"after the rotation")

    ended = daemon.sync()

    assert ended["event"] == "cycle_finished", ended
    assert published(daemon.target)["a.py"] == b"after the rotation"
    assert signed_by(s3.requests[-1]) == NEW[0]
    assert_hides(daemon, OLD[1], NEW[1])


def test_keys_refused_for_good_are_named_and_fixed_without_restart(
    s3: FakeS3, start: StartDaemon, tmp_path: Path, profile: Settings
) -> None:
    s3.identities = {NEW[0]: Identity(NEW[1])}
    daemon = start(profile, interval="0.5")

    failed = daemon.wait_for_event("cycle_failed")

    assert failed["reason"] == "credentials_invalid"
    assert OLD[0] in failed["error"]
    assert failed["advice"]
    write_profile(tmp_path / "credentials", *NEW)
    daemon.wait_until_synced()
    assert published(daemon.target) == FILES
    assert_hides(daemon, OLD[1], NEW[1])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (NO_KEYS | {"AWS_PROFILE": "no-such-profile"}, "no-such-profile"),
        ({"AWS_SECRET_ACCESS_KEY": None}, "secret"),
    ],
    ids=["no profile", "half a key pair"],
)
def test_credentials_that_are_not_there_are_named(
    start: StartDaemon, settings: Settings, said: str
) -> None:
    failed = start(settings).wait_for_event("cycle_failed")

    assert failed["reason"] == "credentials_missing"
    assert said in failed["error"].lower()


def test_irsa(s3: FakeS3, target: Path, start: StartDaemon, sts: FakeSts, irsa: Settings) -> None:
    accept(s3, sts.credentials)
    daemon = start(irsa).until_synced()

    assert published(target) == FILES
    assert len(sts.seen(ASSUME)) == 1
    call = sts.seen(ASSUME)[0].form
    assert call["RoleArn"] == ROLE_ARN
    assert call["WebIdentityToken"] == "service-account-token-1"
    secrets = (sts.credentials.secret_key, sts.credentials.token, "service-account-token-1")
    assert_hides(daemon, *secrets)
    assert len(sts.seen(ASSUME)) == 1


@pytest.mark.parametrize("refusal", ["ExpiredToken", "InvalidToken", "InvalidAccessKeyId"])
def test_credentials_that_s3_calls_expired_are_fetched_again_within_the_cycle(
    s3: FakeS3, start: StartDaemon, sts: FakeSts, token_file: Path, refusal: str, irsa: Settings
) -> None:
    accept(s3, sts.credentials)
    daemon = start(irsa).until_synced()
    rotate(s3, sts, refusal)
    token_file.write_text("service-account-token-2")
    s3.put("dags/a.py", b"after the rotation")

    ended = daemon.sync()

    assert ended["event"] == "cycle_finished", ended
    assert published(daemon.target)["a.py"] == b"after the rotation"
    assert len(sts.seen(ASSUME)) == 2
    assert sts.seen(ASSUME)[1].form["WebIdentityToken"] == "service-account-token-2"
    assert daemon.find_events("cycle_failed") == []


def test_credentials_that_expire_between_listing_and_download_are_fetched_again(
    s3: FakeS3, target: Path, start: StartDaemon, sts: FakeSts, irsa: Settings
) -> None:
    accept(s3, sts.credentials)
    for number in range(40):
        s3.put(f"dags/many/{number}.py", b"x")

    def expire_after(exchange: Exchange) -> None:
        exchange.send(exchange.good())
        rotate(s3, sts, "ExpiredToken")

    s3.inject(expire_after, is_list, times=1)
    daemon = start(irsa).until_synced()

    assert len(published(target)) == len(FILES) + 40
    assert daemon.find_events("cycle_failed") == []
    assert len(sts.seen(ASSUME)) == 2


def test_s3_that_refuses_new_credentials_too_is_not_asked_endlessly(
    s3: FakeS3, start: StartDaemon, sts: FakeSts, irsa: Settings
) -> None:
    s3.identities = {sts.credentials.access_key: sts.credentials.identity("ExpiredToken")}
    failed = start(irsa).wait_for_event("cycle_failed")

    assert failed["reason"] == "credentials_expired"
    assert len(sts.requests) <= 3
    assert len(s3.requests) <= 3


def test_a_refresh_that_fails_does_not_stop_credentials_that_are_still_valid(
    s3: FakeS3, target: Path, start: StartDaemon, sts: FakeSts, irsa: Settings
) -> None:
    sts.issue(session_credentials(1, valid_seconds=20))
    accept(s3, sts.credentials)
    daemon = start(irsa, interval="0.5").until_synced()
    sts.inject(sts_error(500, "InternalFailure"))

    sts.wait_for(ASSUME, count=2, timeout=25)
    s3.put("dags/a.py", b"still going")
    wait_until(lambda: published(target)["a.py"] == b"still going", "the change is there")

    assert daemon.find_events("cycle_failed") == []


def test_short_lived_credentials_are_renewed_before_they_end(
    s3: FakeS3, start: StartDaemon, sts: FakeSts, irsa: Settings
) -> None:
    sts.issue(session_credentials(1, valid_seconds=6))
    accept(s3, sts.credentials)
    daemon = start(irsa, interval="0.5").until_synced()
    new = session_credentials(2, valid_seconds=3600)
    s3.identities[new.access_key] = new.identity()
    sts.issue(new)

    s3.wait_for(lambda request: signed_by(request) == new.access_key, timeout=10)

    assert time.time() < session_credentials(1, 0).expires_at.timestamp() + 6
    assert daemon.find_events("cycle_failed") == []


@pytest.mark.parametrize(
    ("code", "reason"),
    [("AccessDenied", "credentials_denied"), ("ExpiredTokenException", "credentials_expired")],
)
def test_an_sts_that_refuses_is_quoted(
    target: Path, start: StartDaemon, sts: FakeSts, code: str, reason: str, irsa: Settings
) -> None:
    message = "Not authorized to perform sts:AssumeRoleWithWebIdentity"
    sts.inject(sts_error(403, code, message))
    daemon = start(irsa, interval="0.5")

    failed = daemon.wait_for_event("cycle_failed")

    assert failed["reason"] == reason
    assert message in failed["error"]
    assert failed["advice"]
    sts.heal()
    daemon.wait_until_synced()
    assert published(target) == FILES


def test_a_token_file_that_is_missing_is_named_and_waited_for(
    target: Path, start: StartDaemon, token_file: Path, irsa: Settings
) -> None:
    token_file.unlink()
    daemon = start(irsa, interval="0.5")

    failed = daemon.wait_for_event("cycle_failed")

    assert failed["reason"].startswith("credentials_")
    assert str(token_file) in failed["error"]
    token_file.write_text("service-account-token-1")
    daemon.wait_until_synced()
    assert published(target) == FILES


def test_pod_identity(s3: FakeS3, target: Path, start: StartDaemon, token_file: Path) -> None:
    with FakePodIdentity(authorization="service-account-token-1") as agent:
        accept(s3, agent.credentials)
        daemon = start({**NO_KEYS, **agent.environment(token_file)}).until_synced()
        assert published(target) == FILES
        secrets = (agent.credentials.secret_key, agent.credentials.token, token_file.read_text())
        assert_hides(daemon, *secrets)

        agent.authorization = "service-account-token-2"
        token_file.write_text("service-account-token-2")
        rotate(s3, agent, "ExpiredToken")

        assert daemon.sync()["event"] == "cycle_finished"
        assert agent.requests[-1].headers["authorization"] == "service-account-token-2"


def test_a_pod_identity_agent_that_is_late_is_waited_for(
    target: Path, start: StartDaemon, token_file: Path
) -> None:
    """The agent is a DaemonSet, and may start after the pod."""
    with FakePodIdentity() as agent:
        agent.inject(answer_with(Answer(500)))
        daemon = start({**NO_KEYS, **agent.environment(token_file)}, interval="0.5")

        failed = daemon.wait_for_event("cycle_failed")

        assert failed["reason"].startswith("credentials_")
        agent.heal()
        daemon.wait_until_synced()
        assert published(target) == FILES


def test_the_role_of_the_instance(s3: FakeS3, target: Path, start: StartDaemon) -> None:
    with FakeImds() as imds:
        accept(s3, imds.credentials)
        settings = NO_KEYS | {"AWS_EC2_METADATA_DISABLED": None} | imds.environment()
        daemon = start(settings).until_synced()

        assert published(target) == FILES
        assert_hides(daemon, imds.credentials.secret_key, imds.credentials.token)


def test_no_credentials_at_all_is_explained(s3: FakeS3, start: StartDaemon) -> None:
    daemon = start(NO_KEYS)

    failed = daemon.wait_for_event("cycle_failed")

    assert failed["reason"] == "credentials_missing"
    assert "IRSA" in failed["advice"]
    assert "AWS_ACCESS_KEY_ID" in failed["advice"]
    assert daemon.get("/readyz").status == 503
    assert daemon.get("/healthz").status == 200
    assert s3.requests == []


def test_endpoint_region_and_keys_from_a_profile(
    s3: FakeS3, target: Path, start: StartDaemon, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    config.write_text(
        "[profile minio]\nregion = eu-west-3\nservices = local\n"
        "aws_access_key_id = AKIAPROFILE\naws_secret_access_key = profile-secret\n"
        f"[services local]\ns3 =\n  endpoint_url = {s3.endpoint}\n"
    )
    s3.identities = {"AKIAPROFILE": Identity("profile-secret")}
    profile = {"AWS_CONFIG_FILE": str(config), "AWS_PROFILE": "minio"}
    nothing = NO_KEYS | {"AWS_ENDPOINT_URL": None, "AWS_DEFAULT_REGION": None}
    start(nothing | profile).wait_until_synced()

    assert published(target) == FILES
    assert signed_region(s3.requests[-1]) == "eu-west-3"


def test_the_endpoint_of_s3_wins_over_the_general_one(s3: FakeS3, start: StartDaemon) -> None:
    general = f"http://127.0.0.1:{own_port()}"
    daemon = start({"AWS_ENDPOINT_URL": general, "AWS_ENDPOINT_URL_S3": s3.endpoint}).until_synced()

    assert published(daemon.target) == FILES
