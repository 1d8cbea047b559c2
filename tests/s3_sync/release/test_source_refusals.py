"""Cycles with a release whose parts are missing, wrong or denied."""

from collections.abc import Callable

import pytest

from s3_sync.release.names import POINTER_KEY, bundle_key, manifest_key
from s3_sync.release.rows import File
from tests.s3_sync.process import Process
from tests.s3_sync.release.following import FILES, PINNED, staged
from tests.support.aws.fake_s3 import FakeS3, access_denied, error, is_get, is_list
from tests.support.http.faults import replace_body
from tests.support.s3_sync.releases import Release, make_release, seal
from tests.support.s3_sync.shelf import Shelf, is_bundle, is_pointer


def _current(shelf: Shelf) -> Release:
    assert shelf.current is not None
    return shelf.current


def _swapped(s3: FakeS3, shelf: Shelf) -> None:
    """Store the manifest of another release under the name of the current one."""
    shelf.put(_manifest(shelf), make_release({"other.py": b"other\n"}).manifest_bytes)


def _without(key: Callable[[Shelf], str]) -> Callable[[FakeS3, Shelf], None]:
    return lambda s3, shelf: s3.delete(f"dags/{key(shelf)}")


def _manifest(shelf: Shelf) -> str:
    return manifest_key(_current(shelf).revision)


def _bundle(shelf: Shelf) -> str:
    return bundle_key(_current(shelf).manifest.head.bundle_sha256)


def _cut(s3: FakeS3, shelf: Shelf) -> None:
    shelf.put(_bundle(shelf), _current(shelf).bundle_bytes[:40])


def _flipped(s3: FakeS3, shelf: Shelf) -> None:
    body = bytearray(_current(shelf).bundle_bytes)
    manifest = _current(shelf).manifest
    (file,) = manifest.locate([manifest.files["pkg1/m1.py"]])
    body[file.offset + 1] ^= 1
    shelf.put(_bundle(shelf), bytes(body))


SABOTAGE: dict[str, tuple[Callable[[FakeS3, Shelf], None], str, str]] = {
    "no pointer": (_without(lambda _: POINTER_KEY), "release_missing", POINTER_KEY),
    "no JSON": (lambda s3, shelf: shelf.put(POINTER_KEY, b"<x/>"), "release_invalid", POINTER_KEY),
    "long pointer": (
        lambda s3, shelf: shelf.put(POINTER_KEY, b" " * 70_000),
        "release_invalid",
        "more than 65536 bytes",
    ),
    "no manifest": (_without(_manifest), "release_missing", "dags/releases/"),
    "other manifest": (_swapped, "release_invalid", "it is the manifest of"),
    "no bundle": (_without(_bundle), "release_missing", "dags/bundles/"),
    "short bundle": (_cut, "bundle_corrupt", "bundle"),
    "flipped bit": (_flipped, "bundle_corrupt", "pkg1/m1.py"),
}


def test_refuses_a_wrong_empty_file_and_leaves_no_staged_or_open_file(
    s3: FakeS3, shelf: Shelf, process: Process
) -> None:
    digest = "0" * 64
    bad = seal([File("empty.py", 0, 0, digest, "0644", 38)], bytes(100))
    shelf.publish({"a.py": b"a = 1\n"})
    shelf.store(bad)
    process.start(PINNED | {"S3_SYNC_REVISION": bad.revision})
    process.fail()
    before = process.held

    assert "bundle_corrupt" == process.fail().reason
    assert [] == staged(process)
    assert before == process.held


@pytest.mark.parametrize("name", SABOTAGE)
def test_a_missing_or_wrong_part_changes_nothing_until_it_is_restored(
    s3: FakeS3, shelf: Shelf, process: Process, name: str
) -> None:
    sabotage, reason, said = SABOTAGE[name]
    good = {"pkg1/m1.py": b"good = 1\n", "old.py": b"old = 1\n"}
    shelf.publish(good)
    process.run(PINNED)
    shelf.publish(FILES)
    sabotage(s3, shelf)

    for _ in range(2):
        error = process.fail()
        assert reason == error.reason
        assert said in error.message
        assert error.advice
        is_cheap = reason != "bundle_corrupt"  # a retry downloads nothing
        assert (10.0 if is_cheap else None) == error.retry_within_seconds
        assert good == process.shown
        assert process.is_ready
        assert [] == staged(process)
    shelf.restore()
    assert "changed" == process.cycle().result
    assert FILES == process.shown


@pytest.mark.parametrize("prefix", ["dags", "R&D + dags"])
def test_reports_the_action_of_a_denied_pointer(s3: FakeS3, process: Process, prefix: str) -> None:
    s3.put(f"{prefix}/{POINTER_KEY}", b"")
    arn = f"arn:aws:s3:::dags-bucket/{prefix}/current.json"
    s3.inject(access_denied("s3:GetObject", arn, "arn:aws:iam::1:role/dags"), is_get(POINTER_KEY))
    process.start(PINNED | {"KEY_PATH": prefix})
    error = process.fail()

    assert "access_denied_get" == error.reason
    assert "s3:GetObject" in error.message


@pytest.mark.parametrize(
    ("may_list", "reason"), [(True, "release_missing"), (False, "access_denied_get")]
)
@pytest.mark.parametrize("beside", [(), (".bak", ".d/current.json")], ids=["alone", "with others"])
def test_recognizes_a_missing_pointer_behind_a_403_if_listing_is_allowed(
    s3: FakeS3, process: Process, may_list: bool, reason: str, beside: tuple[str, ...]
) -> None:
    s3.put_each((f"dags/{POINTER_KEY}{end}" for end in beside), b"")
    s3.inject(error(403, "AccessDenied", "Access Denied"), is_pointer)
    if not may_list:
        s3.inject(error(403, "AccessDenied", "Access Denied"), is_list)
    process.start(PINNED)

    assert reason == process.fail().reason


def test_recovers_from_a_corrupted_download_in_the_next_cycle(
    s3: FakeS3, shelf: Shelf, process: Process
) -> None:
    shelf.publish(FILES)
    s3.inject(replace_body(lambda body: body[:-5] + b"\0" + body[-4:]), is_bundle, times=1)
    process.start(PINNED)

    assert "bundle_corrupt" == process.fail().reason
    assert {} == process.shown
    assert "changed" == process.cycle().result
    assert FILES == process.shown


def test_a_denied_list_action_means_that_the_pointer_is_missing(
    s3: FakeS3, process: Process
) -> None:
    """S3 reports the denied s3:ListBucket, and not s3:GetObject, which is allowed."""
    arn, identity = "arn:aws:s3:::dags-bucket", "arn:aws:iam::1:role/dags"
    s3.inject(access_denied("s3:ListBucket", arn, identity), is_pointer)
    s3.inject(access_denied("s3:ListBucket", arn, identity), is_list)
    process.start(PINNED)

    assert "release_missing" == process.fail().reason
