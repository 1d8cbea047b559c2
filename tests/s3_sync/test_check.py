"""The checks and output of `s3-sync check`, in this process; for whole processes, see scenarios."""

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
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
    redirect,
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


def test_reads_a_byte_of_every_object(check: Check, s3: FakeS3) -> None:
    s3.put("dags/big.bin", bytes(1 << 20))

    assert f"{len(FILES) + 1} of {len(FILES) + 1} objects read" in check(0)

    asked = {request.path: request.headers.get("range") for request in s3.seen(is_get())}
    assert len(FILES) + 1 == len(asked)
    assert "bytes=0-0" == asked[f"/{s3.bucket}/dags/big.bin"]


def test_names_the_first_of_the_objects_that_cannot_be_read(check: Check, s3: FakeS3) -> None:
    s3.put_all({f"dags/d{number:02}.py": b"x" for number in range(35 - len(FILES))})
    for number in (5, 7, 11, 13):
        s3.inject(error(403, "AccessDenied"), is_get(f"dags/d{number:02}.py"))
    s3.inject(error(403, "InvalidObjectState"), is_get("dags/d17.py"))

    said = check(3)

    names = "dags/d05.py, dags/d07.py, dags/d11.py, …"
    assert f"access_denied_get: 4 of 35 objects cannot be read ({names}): " in said
    assert "object_archived: 1 of 35 objects cannot be read (dags/d17.py): " in said
    assert 2 == said.count("FAIL")


def test_shows_that_only_some_of_many_objects_were_read(check: Check, s3: FakeS3) -> None:
    """One of each folder is among them."""
    s3.put_all({f"dags/d{number:04}.py": b"x" for number in range(1_200 - len(FILES) - 2)})
    s3.put_all({"dags/zoo/a.py": b"a", "dags/zoo/z.py": b"z"})

    said = check(0)

    assert "??    s3:GetObject   1000 of 1200 objects read" in said
    asked = {request.path.removeprefix(f"/{s3.bucket}/dags/") for request in s3.seen(is_get())}
    assert {"", "pkg", "zoo"} == {path.rpartition("/")[0] for path in asked}
    assert 1_000 == len(asked)


def test_does_not_ask_a_failing_endpoint_for_every_object(check: Check, s3: FakeS3) -> None:
    s3.put_all({f"dags/d{number:03}.py": b"x" for number in range(100)})
    s3.inject(redirect("http://portal.example/login"), is_get())

    assert "redirect_refused" in check(3)
    assert len(s3.seen(is_get())) <= 16


@pytest.mark.parametrize("times", [1, 2])
def test_retries_a_changing_object_once(check: Check, s3: FakeS3, times: int) -> None:
    s3.inject(error(412, "PreconditionFailed"), is_get("dags/a.py"), times=times)

    said = check(3 if times == 2 else 0)

    assert (times == 2) == ("object_changing" in said)


def test_reports_an_object_without_an_etag(check: Check, s3: FakeS3) -> None:
    s3.put("dags/a/__init__.py", b"")
    s3.put("dags/a/b.py", b"b", etag="")

    assert "etag_missing" in check(3)


def test_reports_files_that_do_not_fit(check: Check, s3: FakeS3, tmp_path: Path) -> None:
    s3.put("dags/big.bin", bytes(3 << 20))
    with small_volume(tmp_path / "volume", "2m") as volume:
        said = check(3, {"DEST_PATH": str(volume / "dags")})

    assert "target_full: 3.0 MiB needed" in said
    assert "the node's disk" in said


@pytest.mark.parametrize(
    ("size", "settings", "lack"),
    [
        ("1m", {}, "1.6 MiB needed, 1.0 MiB free"),
        ("16m,nr_inodes=64", {}, "inodes needed"),
        ("16m,nr_inodes=64", {"S3_SYNC_LAYOUT": "snapshot"}, "inodes needed"),
        ("16m,nr_inodes=600", {"S3_SYNC_LAYOUT": "snapshot"}, ""),
        ("16m,nr_inodes=600", {}, ""),
    ],
    ids=["blocks", "inodes", "snapshot", "snapshot fits", "fits"],
)
def test_many_small_files_fit_only_where_the_daemon_can_publish_them(
    check: Check,
    s3: FakeS3,
    tmp_path: Path,
    size: str,
    settings: dict[str, str],
    lack: str,
) -> None:
    s3.put_all({f"dags/small/d{number:03}.py": b"x" for number in range(400)})
    with small_volume(tmp_path / "volume", size) as volume:
        given = settings | {"DEST_PATH": str(volume / "dags")}
        said = check(3 if lack else 0, given)
        process = Process(s3, volume / "dags")
        process.start({"KEY_PATH": "dags", **settings})
        if lack:
            assert "target_full" == process.fail().reason
        else:
            process.cycle()
        process.stop()

    assert ("target_full: " in said) == bool(lack)
    assert lack in said


def test_units_of_megabytes_do_not_count_as_the_size_of_small_files(
    check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    ceph = SimpleNamespace(f_frsize=4 << 20, f_blocks=2, f_bfree=1, f_bavail=1, f_files=0)
    monkeypatch.setattr(os, "statvfs", lambda _: ceph)

    assert "4 MiB free" in check(0)


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
