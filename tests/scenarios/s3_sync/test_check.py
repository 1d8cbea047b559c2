"""`s3-sync check`: what is wrong with a set-up, and the IAM statement that fixes it."""

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import pytest

from s3_sync.release.names import bundle_key
from tests.scenarios.s3_sync.conftest import StartDaemon
from tests.scenarios.s3_sync.identities import NO_KEYS
from tests.support.daemon import Settings
from tests.support.fake_aws import IDENTITY_ARN, FakeSts
from tests.support.fake_s3 import SECRET_KEY, FakeS3, access_denied, error, is_get, is_list
from tests.support.loopback import dead_endpoint
from tests.support.program import own_port
from tests.support.scripted import published
from tests.support.scripts import script
from tests.support.shelf import Shelf, is_bundle
from tests.support.signing import Key, write_keys
from tests.support.volumes import small_volume

BUCKET_ARN = "arn:aws:s3:::dags-bucket"
KEY_ARN = "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555"


class Check(Protocol):
    """
    What the fixture `check` gives: runs `s3-sync check` to its end, and returns all that it said.
    """

    def __call__(
        self,
        code: int,
        settings: Mapping[str, str | None] | None = None,
        timeout_seconds: float = 30,
    ) -> str: ...


@pytest.fixture
def check(start: StartDaemon) -> Check:
    """Runs a check that must end with a code."""

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


def test_a_good_set_up_is_ok(check: Check, target: Path) -> None:
    with FakeSts() as sts:
        said = check(0, {"AWS_ENDPOINT_URL_STS": sts.endpoint})

    for fact in (IDENTITY_ARN, "s3:ListBucket", "s3:GetObject", str(target)):
        assert fact in said
    assert published(target) == {}


def test_a_good_set_up_is_ok_without_an_sts(check: Check) -> None:
    """S3-compatible stores have none."""
    check(0, {"AWS_ENDPOINT_URL_STS": f"http://127.0.0.1:{own_port()}"})


def test_changes_nothing_in_the_target(check: Check, target: Path) -> None:
    target.mkdir()
    (target / "mine.py").write_text("mine")

    check(0)

    assert published(target) == {"mine.py": b"mine"}
    assert [path.name for path in target.iterdir()] == ["mine.py"]


@pytest.fixture
def port() -> dict[str, str]:
    """A port that a daemon and its check agree on."""
    return {"S3_SYNC_HTTP_BIND": f"127.0.0.1:{own_port()}"}


def test_works_beside_a_running_daemon(
    check: Check, start: StartDaemon, port: dict[str, str]
) -> None:
    daemon = start(port).until_synced()

    assert f"has published {daemon.status()['revision']}" in check(0, port)

    assert daemon.sync()["event"] == "cycle_finished"


def test_what_the_daemon_lacks_is_named(
    check: Check, start: StartDaemon, s3: FakeS3, port: dict[str, str]
) -> None:
    s3.inject(error(403, "AccessDenied"), is_get("dags/pkg/b.py"))
    start(port).until_synced()
    s3.heal()

    said = check(3, port)

    assert "access_denied_get" in said
    assert "1 files of the source are not there as it has them" in said


def test_a_revision_that_the_gate_refuses_is_named(
    check: Check, start: StartDaemon, s3: FakeS3, port: dict[str, str]
) -> None:
    settings = {**port, "S3_SYNC_GATE": "syntax"}
    daemon = start(settings).until_synced()
    s3.put("dags/a.py", b"x = (\n")
    daemon.sync()

    assert "revision_refused" in check(3, settings)


def test_a_gates_command_is_run_and_what_the_daemon_had_from_it_is_said(
    check: Check, start: StartDaemon, s3: FakeS3, port: dict[str, str], tmp_path: Path
) -> None:
    """It accepts the empty DAG of a check, and is killed by what the bucket has."""
    command = script(tmp_path / "gate", "! grep -q endless . -r || kill -9 $$")
    settings = {**port, "S3_SYNC_GATE": "command", "S3_SYNC_GATE_COMMAND": command}
    daemon = start(settings).until_synced()
    good = check(0, settings)
    s3.put("dags/a.py", b"endless = 1\n")
    daemon.sync()

    said = check(3, settings)

    assert "command: it can be run" in good and "has published " in good
    assert "command: it can be run" in said and "gate_undecided" in said


@pytest.mark.parametrize("has_daemon", [False, True])
def test_a_gates_command_is_not_given_a_dag_that_airflow_would_find(
    check: Check, start: StartDaemon, target: Path, tmp_path: Path, has_daemon: bool
) -> None:
    given = tmp_path / "given"
    command = script(tmp_path / "gate", f"test -e dag.py && pwd >> {given}; exit 0")
    if has_daemon:
        start().until_synced()

    check(0, {"S3_SYNC_GATE": "command", "S3_SYNC_GATE_COMMAND": command})

    folder = Path(given.read_text().strip())
    assert has_daemon == folder.is_relative_to(target)
    assert folder.is_relative_to(target / ".s3-sync/staging") or not has_daemon
    assert not folder.exists()


def test_a_gates_command_that_cannot_be_run_is_named(
    check: Check, target: Path, tmp_path: Path
) -> None:
    command = script(tmp_path / "gate", "", "/nowhere/sh")

    said = check(3, {"S3_SYNC_GATE": "command", "S3_SYNC_GATE_COMMAND": command})

    assert "gate_undecided" in said and "cannot be started" in said
    assert published(target) == {}


def test_a_daemon_whose_page_is_off_is_named(check: Check, start: StartDaemon) -> None:
    start().until_synced()

    assert "does not answer for this source here" in check(0)


def test_each_top_folder_is_tried(check: Check, s3: FakeS3) -> None:
    s3.put("dags/small.py", b"")
    s3.inject(error(403, "AccessDenied"), is_get("dags/pkg/empty.py"))

    assert "access_denied_get" in check(3)


def test_what_does_not_fit_is_named(check: Check, s3: FakeS3, tmp_path: Path) -> None:
    s3.put("dags/big.bin", bytes(3 << 20))
    with small_volume(tmp_path / "volume", "2m") as volume:
        said = check(3, {"DEST_PATH": str(volume / "dags")})

    assert "target_full: 3.0 MiB are to come" in said


def test_a_check_that_is_stopped_is_no_good_set_up(start: StartDaemon) -> None:
    """Nor does it wait for a server that does not answer."""
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
            assert not asked.recv(1), "who asked is still there"


TERSE = error(403, "AccessDenied", "Access Denied")
DENIED = {
    "list": (TERSE, is_list, ("s3:ListBucket", BUCKET_ARN, IDENTITY_ARN)),
    "list, with who we are": (
        access_denied("s3:ListBucket", BUCKET_ARN, IDENTITY_ARN),
        is_list,
        ("s3:ListBucket", BUCKET_ARN, IDENTITY_ARN),
    ),
    "get": (TERSE, is_get(), ("s3:GetObject", f"{BUCKET_ARN}/dags/*")),
    "key": (
        access_denied("kms:Decrypt", KEY_ARN, IDENTITY_ARN),
        is_get(),
        ("kms:Decrypt", KEY_ARN),
    ),
}


@pytest.mark.parametrize("name", DENIED)
def test_what_is_denied_is_named_with_a_statement_that_allows_it(
    check: Check, s3: FakeS3, name: str
) -> None:
    fault, match, named = DENIED[name]
    s3.inject(fault, match)
    with FakeSts() as sts:
        said = check(3, {"AWS_ENDPOINT_URL_STS": sts.endpoint})

    for fact in (*named, "Effect"):
        assert fact in said


@pytest.mark.parametrize(
    ("code", "settings", "named"),
    [
        (3, NO_KEYS, ("credentials_missing", "IRSA")),
        (3, {"AWS_BUCKET": "no-such-bucket"}, ("bucket_not_found", "no-such-bucket")),
        (3, {"KEY_PATH": "dagz"}, ("dagz",)),
        (3, {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, ("127.0.0.1:1",)),
        (3, {"DEST_PATH": "/sys/s3-sync"}, ("/sys/s3-sync",)),
        (2, {"S3_SYNC_DELETE": "all of it", "INTERVAL": "often"}, ("S3_SYNC_DELETE", "INTERVAL")),
    ],
    ids=["credentials", "bucket", "prefix", "endpoint", "target", "settings"],
)
def test_what_is_wrong_is_named(
    check: Check, code: int, settings: Settings, named: tuple[str, ...]
) -> None:
    said = check(code, settings)

    for fact in named:
        assert fact in said


@pytest.mark.usefixtures("only_in_full")
def test_a_silent_endpoint_is_given_up(check: Check) -> None:
    with dead_endpoint() as endpoint:
        said = check(3, {"AWS_ENDPOINT_URL": endpoint}, 60)

    assert endpoint.removeprefix("http://") in said


def test_all_that_is_wrong_is_said_at_once(check: Check, s3: FakeS3) -> None:
    s3.inject(TERSE)

    said = check(3, {"DEST_PATH": "/sys/s3-sync"})

    assert "s3:ListBucket" in said
    assert "/sys/s3-sync" in said


def test_a_silent_metadata_service_does_not_hang_it(check: Check) -> None:
    """IMDS behind a hop limit of 1."""
    with dead_endpoint() as endpoint:
        metadata = {
            "AWS_EC2_METADATA_DISABLED": None,
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": endpoint,
        }
        said = check(3, NO_KEYS | metadata)

    assert "credentials" in said


def test_a_silent_sts_does_not_hang_it(check: Check) -> None:
    with dead_endpoint() as endpoint:
        check(0, {"AWS_ENDPOINT_URL_STS": endpoint}, 20)


def test_the_wrong_region_is_no_problem(check: Check, s3: FakeS3) -> None:
    s3.region, s3.region_answer = "eu-west-1", "malformed"

    check(0, {"AWS_REGION": "us-east-1"})


# --- releases

FROM_RELEASES = {"S3_SYNC_SOURCE": "release"}


def test_a_release_is_tried_as_the_daemon_would_read_it(
    check: Check, s3: FakeS3, target: Path
) -> None:
    release = Shelf.at(s3).publish({"a.py": b"a = 1\n"})

    said = check(0, FROM_RELEASES)

    assert f"{release.revision}, files: 1" in said
    assert "pointer, manifest and bundle" in said
    assert [] == s3.seen(is_list)
    assert published(target) == {}


def test_with_trusted_keys_it_says_who_has_signed_the_release(
    check: Check, s3: FakeS3, target: Path, tmp_path: Path
) -> None:
    key, other, shelf = Key(), Key(), Shelf.at(s3)
    shelf.signer = key.signer
    shelf.publish({"a.py": b"a = 1\n"})
    given = FROM_RELEASES | {"S3_SYNC_TRUSTED_KEYS": str(write_keys(tmp_path / "keys", key))}

    assert f"files: 1, signed by {key.key_id}" in check(0, given)
    write_keys(tmp_path / "keys", other)
    assert f"is refused: it is signed by {key.key_id}" in check(3, given)
    assert published(target) == {}
    assert not (target / ".s3-sync/seen.json").exists()


def test_a_prefix_without_a_release_is_named(check: Check) -> None:
    said = check(3, FROM_RELEASES)

    assert "release_missing" in said
    assert "dags/current.json" in said


def test_a_bundle_that_is_gone_or_denied_is_named(check: Check, s3: FakeS3) -> None:
    release = Shelf.at(s3).publish({"a.py": b"a = 1\n"})
    arn = f"{BUCKET_ARN}/dags/bundles/x.zip"
    s3.inject(access_denied("s3:GetObject", arn, IDENTITY_ARN), is_bundle, times=1)

    denied = check(3, FROM_RELEASES)
    s3.delete(f"dags/{bundle_key(release.manifest.head.bundle_sha256)}")
    missing = check(3, FROM_RELEASES)

    assert f'"Resource": "{BUCKET_ARN}/dags/*"' in denied
    assert "release_missing" in missing
