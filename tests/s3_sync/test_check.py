"""The checks and output of `s3-sync check`, in this process; for whole processes, see scenarios."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest

from s3_sync import check as checks
from s3_sync.release.format import bundle_key
from s3_sync.settings import load_settings
from tests.s3_sync.given import Given, config_of
from tests.s3_sync.process import Process
from tests.support.aws.fake_s3 import (
    SECRET_KEY,
    FakeS3,
    access_denied,
    error,
    is_get,
    is_list,
)
from tests.support.machine.volumes import small_volume
from tests.support.s3_sync.scripted import FILES, fill, published
from tests.support.s3_sync.shelf import RELEASE, Shelf, is_bundle
from tests.support.s3_sync.signing import Key, write_keys
from tests.support.scripts import script

BUCKET_ARN = "arn:aws:s3:::dags-bucket"
KEY_ARN = "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555"
IDENTITY_ARN = "arn:aws:iam::123456789012:role/dags"


class Check(Protocol):
    """A function that runs a check, verifies its exit code, and returns its output."""

    def __call__(self, code: int, settings: dict[str, str] | None = None) -> str: ...


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A target that does not exist yet."""
    return tmp_path / "target"


@pytest.fixture
def check(
    s3: FakeS3,
    target: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Check:
    fill(s3)
    common = {"AWS_BUCKET": s3.bucket, "KEY_PATH": "dags", "DEST_PATH": str(target)}

    def run(code: int, settings: dict[str, str] | None = None) -> str:
        environ = common | (settings or {})
        endpoint = environ.get("AWS_ENDPOINT_URL", s3.endpoint)
        config = config_of(s3, endpoint_url=endpoint, region=environ.get("AWS_REGION", s3.region))
        monkeypatch.setattr(checks, "Chain", lambda **_: Given(config))

        assert code == checks.run(*load_settings(environ))
        said = capsys.readouterr().out
        assert SECRET_KEY not in said
        return said

    return run


def test_credentials_of_a_public_bucket_are_reported_as_unused(check: Check) -> None:
    said = " ".join(check(0, {"S3_SYNC_BUCKET_ACCESS": "public"}).split())

    assert "credentials not used: requests are unsigned; " in said


def test_changes_nothing_in_the_target(check: Check, target: Path) -> None:
    target.mkdir()
    (target / "mine.py").write_text("mine")

    check(0)

    assert published(target) == {"mine.py": b"mine"}
    assert [path.name for path in target.iterdir()] == ["mine.py"]


@pytest.mark.parametrize("make", [Path.touch, lambda path: (path / "a").mkdir(parents=True)])
def test_reports_what_blocks_the_link(
    check: Check, target: Path, make: Callable[[Path], object]
) -> None:
    target.mkdir()
    make(target / "current")

    assert "link_blocked" in check(3, {"S3_SYNC_LAYOUT": "snapshot"})


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir])
def test_reports_no_block_where_the_daemon_restores_the_link(
    check: Check, s3: FakeS3, target: Path, make: Callable[[Path], object]
) -> None:
    layout = {"S3_SYNC_LAYOUT": "snapshot"}
    process = Process(s3, target)
    process.run(layout | {"KEY_PATH": "dags"})
    process.stop()
    (target / "current").unlink()
    make(target / "current")

    assert "link_blocked" not in check(0, layout)

    process.run(layout | {"KEY_PATH": "dags"})
    assert process.is_ready
    process.stop()


@pytest.mark.parametrize("filters", [{}, {"S3_SYNC_INCLUDE": "*.pyy"}], ids=["none", "slipped"])
def test_reports_an_empty_source_like_the_daemon(
    check: Check, s3: FakeS3, tmp_path: Path, filters: dict[str, str]
) -> None:
    settings = filters or {"KEY_PATH": "dgas"}
    daemon = Process(s3, tmp_path / "other")

    daemon.start({"KEY_PATH": "dags", **settings})
    failed = daemon.fail()
    said = " ".join(check(3, settings).split())

    assert "source_empty" == failed.reason
    assert f"source_empty: {failed.message} {failed.advice}" in said
    assert bool(filters) == ("S3_SYNC_INCLUDE" in failed.message)


def gated_by(command: str) -> dict[str, str]:
    gate = {"S3_SYNC_GATE": "command", "S3_SYNC_GATE_COMMAND": command}
    return {"S3_SYNC_LAYOUT": "snapshot"} | gate


@pytest.mark.parametrize("has_daemon", [False, True])
def test_the_gate_command_runs_in_a_folder_hidden_from_airflow(
    check: Check, s3: FakeS3, target: Path, tmp_path: Path, has_daemon: bool
) -> None:
    given = tmp_path / "given"
    command = script(tmp_path / "gate", f"test -e dag.py && pwd >> {given}; exit 0")
    if has_daemon:
        target.mkdir()
        daemon = Process(s3, target)
        daemon.run({"KEY_PATH": "dags"})
        daemon.stop()

    check(0, gated_by(command))

    folder = Path(given.read_text().strip())
    assert has_daemon == folder.is_relative_to(target)
    assert folder.is_relative_to(target / ".s3-sync/staging") or not has_daemon
    assert not folder.exists()


def test_reports_a_gate_command_that_cannot_be_started(
    check: Check, target: Path, tmp_path: Path
) -> None:
    command = script(tmp_path / "gate", "", "/nowhere/sh")

    said = check(3, gated_by(command))

    assert "gate_undecided" in said and "cannot be started" in said
    assert published(target) == {}


def test_reads_the_smallest_object_of_each_folder(check: Check, s3: FakeS3) -> None:
    """A policy may cover only some folders."""
    s3.put_all({"dags/zoo/big.bin": bytes(1 << 20), "dags/zoo/z.py": b"z"})

    assert f"3 of {len(FILES) + 2} objects read" in check(0)

    asked = {request.path.removeprefix(f"/{s3.bucket}/dags/") for request in s3.seen(is_get())}
    assert {"", "pkg", "zoo"} == {path.rpartition("/")[0] for path in asked}
    assert "zoo/z.py" in asked


def test_reads_only_some_objects_of_many_folders(check: Check, s3: FakeS3) -> None:
    s3.put_all({f"dags/d{number}/a.py": b"x" for number in range(100)})

    check(0)

    assert checks.OBJECTS == len(s3.seen(is_get()))


def test_an_object_that_changes_meanwhile_is_no_failure(check: Check, s3: FakeS3) -> None:
    s3.inject(error(412, "PreconditionFailed"), is_get("dags/a.py"))

    check(0)


def test_reports_an_object_without_an_etag(check: Check, s3: FakeS3) -> None:
    s3.put("dags/a/b.py", b"b", etag="")

    assert "etag_missing" in check(3)


def test_reports_files_that_do_not_fit(check: Check, s3: FakeS3, tmp_path: Path) -> None:
    s3.put("dags/big.bin", bytes(3 << 20))
    with small_volume(tmp_path / "volume", "2m") as volume:
        said = check(3, {"DEST_PATH": str(volume / "dags")})

    assert "target_full: 3.0 MiB needed, the volume has 2.0" in said
    assert "the node's disk" in said


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
def test_reports_denied_actions_with_a_policy_statement(
    check: Check, s3: FakeS3, name: str
) -> None:
    fault, match, named = DENIED[name]
    s3.inject(fault, match)

    said = check(3)

    for fact in (*named, "Effect"):
        assert fact in said


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"AWS_BUCKET": "no-such-bucket"}, ("bucket_not_found", "no-such-bucket")),
        ({"KEY_PATH": "dagz"}, ("dagz",)),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, ("127.0.0.1:1",)),
        ({"DEST_PATH": "/sys/s3-sync"}, ("/sys/s3-sync",)),
    ],
    ids=["bucket", "prefix", "endpoint", "target"],
)
def test_reports_mistakes_in_settings(
    check: Check, settings: dict[str, str], named: tuple[str, ...]
) -> None:
    said = check(3, settings)

    for fact in named:
        assert fact in said


def test_reports_all_problems_together(check: Check, s3: FakeS3) -> None:
    s3.inject(TERSE)

    said = check(3, {"DEST_PATH": "/sys/s3-sync"})

    assert "s3:ListBucket" in said
    assert "/sys/s3-sync" in said


def test_accepts_a_wrong_region(check: Check, s3: FakeS3) -> None:
    s3.region, s3.region_answer = "eu-west-1", "malformed"

    check(0, {"AWS_REGION": "us-east-1"})


# --- releases


def test_reads_a_release_as_the_daemon_does(check: Check, s3: FakeS3, target: Path) -> None:
    release = Shelf(s3).publish({"a.py": b"a = 1\n"})

    said = check(0, RELEASE)

    assert f"{release.revision}, files: 1" in said
    assert "pointer, manifest and bundle" in said
    assert [] == s3.seen(is_list)
    assert published(target) == {}


def test_reports_the_signer_if_trusted_keys_are_set(
    check: Check, s3: FakeS3, target: Path, tmp_path: Path
) -> None:
    key, other, shelf = Key(), Key(), Shelf(s3)
    shelf.signer = key.signer
    shelf.publish({"a.py": b"a = 1\n"})
    given = RELEASE | {"S3_SYNC_TRUSTED_KEYS": str(write_keys(tmp_path / "keys", key))}

    assert f"files: 1, signed by {key.key_id}" in check(0, given)
    write_keys(tmp_path / "keys", other)
    assert f"is refused: it is signed by {key.key_id}" in check(3, given)
    assert published(target) == {}
    assert not (target / ".s3-sync/seen.json").exists()


def test_reports_a_prefix_without_a_release(check: Check) -> None:
    said = check(3, RELEASE)

    assert "release_missing" in said
    assert "dags/current.json" in said


def test_reports_a_missing_or_denied_bundle(check: Check, s3: FakeS3) -> None:
    release = Shelf(s3).publish({"a.py": b"a = 1\n"})
    arn = f"{BUCKET_ARN}/dags/bundles/x.zip"
    s3.inject(access_denied("s3:GetObject", arn, IDENTITY_ARN), is_bundle, times=1)

    denied = check(3, RELEASE)
    s3.delete(f"dags/{bundle_key(release.manifest.bundle_sha256)}")
    missing = check(3, RELEASE)

    assert f'"Resource": "{BUCKET_ARN}/dags/*"' in denied
    assert "release_missing" in missing
