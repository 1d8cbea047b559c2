"""
`s3-sync check` as a process: what it reports, beside a daemon and with silent servers.
"""

import errno
import signal
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests import Given, Plant, Texts
from tests.scenarios.s3_sync.conftest import StartDaemon
from tests.scenarios.s3_sync.s3.identities import NO_KEYS
from tests.support.aws.fake_aws import IDENTITY_ARN, FakeSts
from tests.support.aws.fake_s3 import (
    SECRET_KEY,
    FakeS3,
    access_denied,
    error,
    is_get,
    is_list,
)
from tests.support.http.loopback import Fault, Match
from tests.support.machine.refusing import refusing
from tests.support.machine.volumes import small_volume
from tests.support.program import own_port
from tests.support.s3_sync.shelf import RELEASE, Shelf, is_bundle
from tests.support.s3_sync.signing import Key, write_keys
from tests.support.s3_sync.snapshots import SNAPSHOT

BUCKET_ARN = "arn:aws:s3:::dags-bucket"
KEY_ARN = "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555"


Check = Callable[..., str]
"""The value of the fixture `check`."""


@pytest.fixture
def check(start: StartDaemon) -> Check:
    """A function that runs a check, which must exit with the given code."""

    def run(code: int, settings: Given | None = None) -> str:
        daemon = start(settings, arguments=("check",))
        end = daemon.wait_for_exit(30)
        text = daemon.log()
        assert end.code == code, text
        assert "Traceback" not in text
        assert SECRET_KEY not in text
        return text

    return run


def test_succeeds_with_working_settings_and_publishes_nothing(
    check: Check, target: Path
) -> None:
    with FakeSts() as sts:
        said = check(0, {"AWS_ENDPOINT_URL_STS": sts.endpoint})

    for fact in (IDENTITY_ARN, "s3:ListBucket", "s3:GetObject", str(target)):
        assert fact in said
    assert not target.exists()


DENIED = error(403, "AccessDenied", "Access Denied")
NO_KEY = access_denied("kms:Decrypt", KEY_ARN, IDENTITY_ARN)
MISTAKES: dict[
    str, tuple[Mapping[str, str], tuple[Fault, Match] | None, tuple[str, ...]]
] = {
    "bucket": (
        {"AWS_BUCKET": "no-such-bucket"},
        None,
        ("bucket_not_found", "no-such-bucket"),
    ),
    "prefix": ({"KEY_PATH": "dgas"}, None, ("source_empty", "s3://dags-bucket/dgas/")),
    "filter": ({"S3_SYNC_INCLUDE": "*.pyy"}, None, ("source_empty", "S3_SYNC_INCLUDE")),
    "endpoint": ({"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, None, ("127.0.0.1:1",)),
    "target": ({"DEST_PATH": "/sys/s3-sync"}, None, ("/sys/s3-sync",)),
    "release": (RELEASE, None, ("release_missing", "dags/current.json")),
    "gate": (
        SNAPSHOT
        | {"S3_SYNC_GATE": "command", "S3_SYNC_GATE_COMMAND": "sh -c 'exit 75'"},
        None,
        ("gate_undecided",),
    ),
    "list denied": (
        {},
        (DENIED, is_list),
        ('"s3:ListBucket"', f'"{BUCKET_ARN}"', "Effect"),
    ),
    "get denied": (
        {},
        (DENIED, is_get()),
        ('"s3:GetObject"', f'"{BUCKET_ARN}/dags/*"'),
    ),
    "key denied": (
        {},
        (NO_KEY, is_get()),
        ('"kms:Decrypt"', f'"{KEY_ARN}"', IDENTITY_ARN),
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_reports_what_is_wrong(
    check: Check, s3: FakeS3, target: Path, name: str
) -> None:
    settings, denied, named = MISTAKES[name]
    if denied:
        s3.inject(*denied)

    said = check(3, settings)

    assert [] == [fact for fact in named if fact not in said], said
    assert not target.exists()


def test_a_volume_that_cannot_flush_a_file_fails(
    start: StartDaemon, target: Path
) -> None:
    daemon = start(arguments=("check",), wrapper=refusing(errno.EIO, "fsync"))

    assert 3 == daemon.wait_for_exit(30).code, daemon.log()
    assert "target_failed: cannot write to" in daemon.log()
    assert "Input/output error" in daemon.log()
    assert not target.exists()


def test_reads_the_smallest_object_of_each_folder(check: Check, s3: FakeS3) -> None:
    """
    A policy may cover only some folders; an object that changes meanwhile is no
    failure.
    """
    s3.put_all({"dags/zoo/big.bin": bytes(1 << 20), "dags/zoo/z.py": b"z"})
    s3.put_each((f"dags/{number}/small.py" for number in range(30)), b"")
    s3.inject(error(412, "PreconditionFailed"), is_get("dags/a.py"))

    check(0)

    asked = {
        request.path.removeprefix(f"/{s3.bucket}/dags/")
        for request in s3.seen(is_get())
    }
    folders = {path.rpartition("/")[0] for path in asked}
    assert {"", "pkg", "zoo"} <= folders
    assert 20 == len(folders)
    assert "zoo/z.py" in asked


def test_reports_files_that_do_not_fit_and_a_volume_that_takes_an_empty_one_only(
    check: Check, s3: FakeS3, tmp_path: Path
) -> None:
    s3.put("dags/big.bin", bytes(3 << 20))
    with small_volume(tmp_path / "volume", "2m") as volume:
        place = {"DEST_PATH": str(volume / "dags")}
        assert "target_full: 3.0 MiB needed, the volume has 2.0" in check(3, place)
        s3.delete("dags/big.bin")
        (volume / "big").write_bytes(bytes(1500 << 10))
        assert "??    target" in check(0, place)
        (volume / "big").write_bytes(bytes(2004 << 10))
        assert "target_full" in check(3, place)


@pytest.mark.parametrize(
    ("said", "name", "block"),
    [
        ("target_failed", "", lambda path: path.symlink_to("nowhere")),
        ("target_failed", ".s3-sync/lock", Path.mkdir),
        ("link_blocked", "current", Path.touch),
        ("link_blocked", "current", lambda path: path.symlink_to("/etc")),
        ("link_blocked", "current/x", Path.touch),
    ],
)
def test_reports_a_target_that_the_daemon_cannot_use(
    check: Check, target: Path, said: str, name: str, block: Plant
) -> None:
    (target / name).parent.mkdir(parents=True, exist_ok=True)
    block(target / name)
    before = sorted(target.rglob("*"))

    assert said in check(3, SNAPSHOT)

    assert before == sorted(target.rglob("*"))


def test_a_link_that_the_daemon_restores_is_no_failure(
    check: Check, start: StartDaemon, target: Path
) -> None:
    start(SNAPSHOT).until_synced().terminate()
    (target / "current").unlink()
    (target / "current").symlink_to("/etc")

    assert "link_blocked" not in check(0, SNAPSHOT)
    assert Path("/etc") == (target / "current").readlink(), "it changes nothing"


def test_reads_a_release_as_the_daemon_does(
    check: Check, s3: FakeS3, target: Path, tmp_path: Path
) -> None:
    key = Key()
    other = Key()
    shelf = Shelf(s3)
    shelf.signer = key.signer
    release = shelf.publish({"a.py": b"a = 1\n"})
    given = RELEASE | {"S3_SYNC_TRUSTED_KEYS": str(write_keys(tmp_path / "keys", key))}

    said = check(0, given)
    write_keys(tmp_path / "keys", other)
    refused = check(3, given)
    s3.inject(DENIED, is_bundle)
    denied = check(3, RELEASE)

    assert f"{release.revision}, files: 1, signed by {key.key_id}" in said
    assert "pointer, manifest and bundle" in said
    assert f"is refused: it is signed by {key.key_id}" in refused
    assert f'"Resource": "{BUCKET_ARN}/dags/*"' in denied
    assert [] == s3.seen(is_list)
    assert not target.exists()


@pytest.fixture
def port() -> Texts:
    """A fixed port, which a daemon and its check share."""
    return {"S3_SYNC_HTTP_BIND": f"127.0.0.1:{own_port()}"}


def test_asks_the_daemon_beside_it_what_it_has_published(
    check: Check, start: StartDaemon, s3: FakeS3, port: Texts
) -> None:
    s3.inject(error(403, "AccessDenied"), is_get("dags/pkg/b.py"))
    daemon = start(port).until_synced()
    s3.heal()
    said = check(3, port)
    assert "access_denied_get" in said
    assert "1 file is missing or out of date" in said

    assert daemon.sync()["event"] == "cycle_finished"
    assert f"published: {daemon.status()['revision']}" in check(0, port)

    daemon.send_signal(signal.SIGSTOP)
    try:
        assert "but does not answer" in check(3, port)
    finally:
        daemon.send_signal(signal.SIGCONT)
    assert daemon.sync()["event"] == "cycle_finished"


def test_tells_when_a_wait_of_the_daemon_began_and_ends(
    check: Check, start: StartDaemon, s3: FakeS3, port: Texts
) -> None:
    many = [f"dags/{number:02}.py" for number in range(30)]
    s3.put_each(many, b"")
    daemon = start(port).until_synced()
    s3.delete(*many)
    assert "deletion_held" == daemon.sync()["reason"]

    said = check(3, port)

    assert "FAIL  daemon         deletion_held: " in said
    assert "they are deleted here, too" in said
    ready = daemon.get("/readyz").json()
    assert f"Since {ready['since']}." in said
    assert f"Waits until {ready['until']}." in said


@pytest.mark.parametrize("page", ["true", "false"])
def test_reports_a_revision_that_the_gate_refuses(
    check: Check, start: StartDaemon, s3: FakeS3, port: Texts, page: str
) -> None:
    settings = {
        **port,
        **SNAPSHOT,
        "S3_SYNC_GATE": "syntax",
        "S3_SYNC_STATUS_PAGE": page,
    }
    daemon = start(settings).until_synced()
    s3.put("dags/a.py", b"x = (\n")
    daemon.sync()

    assert "revision_refused" in check(3, settings)


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
