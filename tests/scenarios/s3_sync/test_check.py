"""
`s3-sync check`: what is wrong with a set-up, and the IAM statement that mends it.
"""

import socket
from collections.abc import Mapping
from pathlib import Path

import pytest

from s3_sync.release.names import bundle_key
from tests.scenarios.s3_sync.conftest import StartDaemon
from tests.support.daemon import Daemon
from tests.support.fake_aws import IDENTITY_ARN, FakeSts
from tests.support.fake_s3 import SECRET_KEY, FakeS3, access_denied, error, is_get, is_list
from tests.support.loopback import closed_port, dead_endpoint
from tests.support.scripted import published
from tests.support.shelf import Shelf, is_bundle

BUCKET_ARN = "arn:aws:s3:::dags-bucket"
KEY_ARN = "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555"
NO_KEYS: dict[str, str | None] = {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}


def output(daemon: Daemon, code: int, timeout_seconds: float = 30) -> str:
    """
    Wait for the end of a check and return all that it said.
    """
    end = daemon.wait_for_exit(timeout_seconds)
    text = daemon.log()
    assert end.code == code, text
    assert "Traceback" not in text
    assert SECRET_KEY not in text
    return text


def check(
    start: StartDaemon, s3: FakeS3, target: Path, settings: Mapping[str, str | None] | None = None
) -> Daemon:
    """
    Run `s3-sync check`.
    """
    return start(s3, target, settings, arguments=("check",))


def test_a_good_set_up_is_ok(s3: FakeS3, target: Path, start: StartDaemon) -> None:
    with FakeSts() as sts:
        said = output(check(start, s3, target, {"AWS_ENDPOINT_URL_STS": sts.endpoint}), 0)

    assert IDENTITY_ARN in said
    assert "s3:ListBucket" in said
    assert "s3:GetObject" in said
    assert str(target) in said
    assert published(target) == {}


def test_a_good_set_up_is_ok_without_an_sts(s3: FakeS3, target: Path, start: StartDaemon) -> None:
    """
    S3-compatible stores have none.
    """
    output(
        check(start, s3, target, {"AWS_ENDPOINT_URL_STS": f"http://127.0.0.1:{closed_port()}"}), 0
    )


def test_changes_nothing_in_the_target(s3: FakeS3, target: Path, start: StartDaemon) -> None:
    target.mkdir()
    (target / "mine.py").write_text("mine")

    output(check(start, s3, target), 0)

    assert published(target) == {"mine.py": b"mine"}
    assert [path.name for path in target.iterdir()] == ["mine.py"]


def test_works_beside_a_running_daemon(s3: FakeS3, target: Path, start: StartDaemon) -> None:
    daemon = start(s3, target)
    daemon.wait_until_synced()

    output(check(start, s3, target), 0)

    assert daemon.sync()["event"] == "cycle_finished"


def test_a_check_that_is_stopped_is_no_good_set_up(
    s3: FakeS3, target: Path, start: StartDaemon
) -> None:
    """
    Nor does it wait for who does not answer.
    """
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(30)
        settings = NO_KEYS | {
            "AWS_EC2_METADATA_DISABLED": "false",
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "AWS_METADATA_SERVICE_TIMEOUT": "60",
        }
        daemon = check(start, s3, target, settings)
        asked, _ = silent.accept()
        with asked:
            asked.settimeout(30)
            assert asked.recv(1 << 16)
            assert 143 == daemon.terminate().code
            assert not asked.recv(1), "who asked is still there"


def test_no_credentials(s3: FakeS3, target: Path, start: StartDaemon) -> None:
    said = output(check(start, s3, target, NO_KEYS), 3)

    assert "credentials_missing" in said or "no AWS credentials" in said
    assert "IRSA" in said


@pytest.mark.parametrize("quotes_identity", [True, False])
def test_list_denied(s3: FakeS3, target: Path, start: StartDaemon, quotes_identity: bool) -> None:
    fault = (
        access_denied("s3:ListBucket", BUCKET_ARN, IDENTITY_ARN)
        if quotes_identity
        else error(403, "AccessDenied", "Access Denied")
    )
    s3.inject(fault, is_list)
    with FakeSts() as sts:
        said = output(check(start, s3, target, {"AWS_ENDPOINT_URL_STS": sts.endpoint}), 3)

    assert "s3:ListBucket" in said
    assert BUCKET_ARN in said
    assert IDENTITY_ARN in said
    assert "Effect" in said


def test_get_denied(s3: FakeS3, target: Path, start: StartDaemon) -> None:
    s3.inject(error(403, "AccessDenied", "Access Denied"), is_get())

    said = output(check(start, s3, target), 3)

    assert "s3:GetObject" in said
    assert f"{BUCKET_ARN}/dags/*" in said
    assert "Effect" in said


def test_kms_denied(s3: FakeS3, target: Path, start: StartDaemon) -> None:
    s3.inject(access_denied("kms:Decrypt", KEY_ARN, IDENTITY_ARN), is_get())

    said = output(check(start, s3, target), 3)

    assert "kms:Decrypt" in said
    assert KEY_ARN in said
    assert "Effect" in said


def test_bucket_missing(s3: FakeS3, target: Path, start: StartDaemon) -> None:
    said = output(check(start, s3, target, {"AWS_BUCKET": "no-such-bucket"}), 3)

    assert "no-such-bucket" in said
    assert "bucket_not_found" in said or "does not exist" in said


def test_an_empty_prefix_is_pointed_out(s3: FakeS3, target: Path, start: StartDaemon) -> None:
    said = output(check(start, s3, target, {"KEY_PATH": "dagz"}), 3)

    assert "dagz" in said


def test_endpoint_unreachable(s3: FakeS3, target: Path, start: StartDaemon) -> None:
    port = closed_port()

    said = output(check(start, s3, target, {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}), 3)

    assert f"127.0.0.1:{port}" in said


@pytest.mark.usefixtures("only_in_full")
def test_a_silent_endpoint_is_given_up(s3: FakeS3, target: Path, start: StartDaemon) -> None:
    with dead_endpoint() as endpoint:
        said = output(check(start, s3, target, {"AWS_ENDPOINT_URL": endpoint}), 3, 60)

    assert endpoint.removeprefix("http://") in said


def test_target_not_writable(s3: FakeS3, target: Path, start: StartDaemon) -> None:
    said = output(check(start, s3, target, {"DEST_PATH": "/sys/s3-sync"}), 3)

    assert "/sys/s3-sync" in said


def test_all_that_is_wrong_is_said_at_once(s3: FakeS3, target: Path, start: StartDaemon) -> None:
    s3.inject(error(403, "AccessDenied", "Access Denied"))

    said = output(check(start, s3, target, {"DEST_PATH": "/sys/s3-sync"}), 3)

    assert "s3:ListBucket" in said
    assert "/sys/s3-sync" in said


def test_bad_settings_are_exit_2(s3: FakeS3, target: Path, start: StartDaemon) -> None:
    said = output(
        check(start, s3, target, {"S3_SYNC_DELETE": "everything", "INTERVAL": "often"}), 2
    )

    assert "S3_SYNC_DELETE" in said
    assert "INTERVAL" in said


def test_a_silent_metadata_service_does_not_hang_it(
    s3: FakeS3, target: Path, start: StartDaemon
) -> None:
    """
    IMDS behind a hop limit of 1.
    """
    with dead_endpoint() as endpoint:
        settings = NO_KEYS | {
            "AWS_EC2_METADATA_DISABLED": None,
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": endpoint,
        }
        said = output(check(start, s3, target, settings), 3, 30)

    assert "credentials" in said


def test_a_silent_sts_does_not_hang_it(s3: FakeS3, target: Path, start: StartDaemon) -> None:
    with dead_endpoint() as endpoint:
        output(check(start, s3, target, {"AWS_ENDPOINT_URL_STS": endpoint}), 0, 20)


def test_the_wrong_region_is_no_problem(s3: FakeS3, target: Path, start: StartDaemon) -> None:
    s3.region, s3.region_answer = "eu-west-1", "malformed"

    output(check(start, s3, target, {"AWS_REGION": "us-east-1"}), 0)


# --- releases

FROM_RELEASES: dict[str, str | None] = {"S3_SYNC_SOURCE": "release"}


def test_a_release_is_tried_as_the_daemon_would_read_it(
    s3: FakeS3, target: Path, start: StartDaemon
) -> None:
    release = Shelf.at(s3).publish({"a.py": b"a = 1\n"})
    said = output(check(start, s3, target, FROM_RELEASES), 0)

    assert f"{release.revision}, files: 1" in said
    assert "pointer, manifest and bundle" in said
    assert [] == s3.seen(is_list)
    assert published(target) == {}


def test_a_prefix_without_a_release_is_named(s3: FakeS3, target: Path, start: StartDaemon) -> None:
    said = output(check(start, s3, target, FROM_RELEASES), 3)

    assert "release_missing" in said
    assert "dags/current.json" in said


def test_a_bundle_that_is_gone_or_denied_is_named(
    s3: FakeS3, target: Path, start: StartDaemon
) -> None:
    release = Shelf.at(s3).publish({"a.py": b"a = 1\n"})
    arn = f"{BUCKET_ARN}/dags/bundles/x.zip"
    s3.inject(access_denied("s3:GetObject", arn, IDENTITY_ARN), is_bundle, times=1)
    denied = output(check(start, s3, target, FROM_RELEASES), 3)
    s3.delete(f"dags/{bundle_key(release.manifest.bundle_sha256)}")
    missing = output(check(start, s3, target, FROM_RELEASES), 3)

    assert f'"Resource": "{BUCKET_ARN}/dags/*"' in denied
    assert "release_missing" in missing
