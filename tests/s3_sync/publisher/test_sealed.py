"""Releases with an object that nobody can read: archived, or its KMS key is disabled."""

from dataclasses import replace
from datetime import timedelta

import pytest

from s3_sync.publisher.catalog import find_release, list_releases, summarise
from s3_sync.publisher.cli import read_arguments
from s3_sync.publisher.commands import run
from s3_sync.publisher.progress import Progress
from s3_sync.publisher.promote import promote
from s3_sync.publisher.prune import prune
from s3_sync.publisher.rollback import roll_back
from s3_sync.release.facts import Origin
from s3_sync.release.names import POINTER_KEY, bundle_key, manifest_key
from s3_sync.settings import load_settings
from tests.s3_sync.bucket import A, B, Bucket, C
from tests.s3_sync.failing import failure
from tests.support.aws.fake_s3 import error, is_get
from tests.support.http.loopback import Request
from tests.support.s3_sync.publishing import PREFIX
from tests.support.s3_sync.releases import make_release
from tests.support.s3_sync.signing import Key

REFUSALS = {
    "object_archived": error(403, "InvalidObjectState"),
    "kms_key_unusable": error(400, "KMS.DisabledException"),
    "access_denied_get": error(403, "AccessDenied", "Access Denied"),
}
OLD = make_release(A)
KEYS = {
    "manifest": manifest_key(OLD.revision),
    "bundle": bundle_key(OLD.manifest.head.bundle_sha256),
    "pointer": POINTER_KEY,
}
sealed = pytest.mark.parametrize("reason", ["object_archived", "kms_key_unusable"])
parts = pytest.mark.parametrize("part", ["manifest", "bundle"])
both = pytest.mark.parametrize("key", [None, Key()], ids=["unsigned", "signed"])


def seal(bucket: Bucket, part: str, reason: str, prefix: str = PREFIX) -> None:
    """Refuse to read an object of the release of A, until it is written again; HEAD succeeds."""
    key = f"{prefix}{KEYS[part]}"
    old = bucket.server.objects[key]

    def match(request: Request) -> bool:
        return is_get(key)(request) and bucket.server.objects.get(key) is old

    bucket.server.inject(REFUSALS[reason], match)


def sign(bucket: Bucket, key: Key | None) -> None:
    if key is not None:
        bucket.store.signer, bucket.store.keys = key.signer, key.signer.keys


def said(bucket: Bucket, *words: str) -> str:
    """Run a command, and return the lines that it prints."""
    arguments = read_arguments([*words, "s3://dags-bucket/dags"])
    return "\n".join(run(bucket.settings, arguments, {}, Progress()).lines)


def back(bucket: Bucket) -> object:
    return roll_back(bucket.store, OLD.revision, Origin(), is_dry=False)


@sealed
@parts
@pytest.mark.parametrize("is_current", [True, False], ids=["current", "earlier"])
def test_a_rollback_to_it_reports_why_it_cannot_be_read(
    bucket: Bucket, part: str, reason: str, is_current: bool
) -> None:
    bucket.publish_all(*([A] if is_current else [A, B]))
    seal(bucket, part, reason)
    before = bucket.bodies()

    found = failure(back, bucket)

    assert reason == found.reason
    assert KEYS[part] in found.message and "publish the content again" in found.advice
    assert before == bucket.bodies()


@sealed
@parts
@both
@pytest.mark.parametrize("repairs", [True, False])
@pytest.mark.parametrize("is_current", [True, False], ids=["current", "earlier"])
def test_publishing_its_content_replaces_what_cannot_be_read(
    bucket: Bucket, part: str, reason: str, is_current: bool, repairs: bool, key: Key | None
) -> None:
    sign(bucket, key)
    bucket.publish_all(*([B, A] if is_current else [B, A, C]))
    seal(bucket, part, reason)
    sequence = bucket.pointer().turn.sequence

    assert "published" == bucket.publish(A, repairs=repairs).result

    assert A == bucket.current()
    assert sequence < bucket.pointer().turn.sequence
    assert make_release(B).revision in bucket.history()
    assert "unchanged" == bucket.publish(A).result


@sealed
def test_other_content_is_published_beside_a_current_manifest_that_cannot_be_read(
    bucket: Bucket, reason: str
) -> None:
    bucket.publish(A)
    seal(bucket, "manifest", reason)

    assert "published" == bucket.publish(B).result
    assert (OLD.revision,) == bucket.history()


@sealed
def test_only_a_repair_replaces_a_pointer_that_cannot_be_read(bucket: Bucket, reason: str) -> None:
    bucket.publish(A)
    seal(bucket, "pointer", reason)

    for files in (A, B):
        found = failure(bucket.publish, files)
        assert reason == found.reason and "--repair" in found.advice
    assert "published" == bucket.publish(A, repairs=True).result

    assert A == bucket.current()
    bucket.publish(B)
    assert (OLD.revision,) == bucket.history()


@pytest.mark.parametrize("part", KEYS)
def test_publish_replaces_nothing_that_only_its_role_may_not_read(
    bucket: Bucket, part: str
) -> None:
    """The role must be corrected: the object may be good."""
    bucket.publish(A)
    seal(bucket, part, "access_denied_get")
    before = bucket.bodies()

    for repairs in (False, True):
        found = failure(bucket.publish, A, repairs=repairs)
        assert "access_denied_get" == found.reason

    assert before == bucket.bodies()


@both
@pytest.mark.parametrize("reason", REFUSALS)
def test_the_list_of_releases_says_which_one_cannot_be_read(
    bucket: Bucket, reason: str, key: Key | None
) -> None:
    sign(bucket, key)
    bucket.publish_all(A, B)
    seal(bucket, "manifest", reason)

    found = list_releases(bucket.store, make_release(B).revision)
    current, earlier = summarise(bucket.store, found)

    assert (OLD.revision, None, reason) == (earlier.revision, earlier.summary, earlier.unread)
    assert current.summary and not current.unread


def test_the_table_of_releases_contains_the_reason(bucket: Bucket) -> None:
    bucket.publish_all(A, B)
    seal(bucket, "manifest", "object_archived")

    [line] = [line for line in said(bucket, "releases").splitlines() if OLD.revision[:12] in line]

    assert line.endswith("object_archived")


@sealed
@parts
def test_it_can_be_compared_and_pinned_as_far_as_it_can_be_read(
    bucket: Bucket, part: str, reason: str
) -> None:
    bucket.publish_all(A, B)
    seal(bucket, part, reason)

    said(bucket, "pin", OLD.revision)
    assert not find_release(bucket.store, OLD.revision).is_whole
    if part == "bundle":
        assert "added" in said(bucket, "diff", OLD.revision, "current")
    else:
        assert reason == failure(said, bucket, "diff", OLD.revision, "current").reason


@sealed
@parts
@both
def test_a_prune_removes_it(bucket: Bucket, part: str, reason: str, key: Key | None) -> None:
    sign(bucket, key)
    bucket.publish_all(A, B, C)
    for name, stored in bucket.server.objects.items():
        if not name.endswith(POINTER_KEY):
            at = stored.last_modified - timedelta(days=9)
            bucket.server.objects[name] = replace(stored, last_modified=at)
    seal(bucket, part, reason)

    for is_dry in (True, False, False):
        done = prune(bucket.store, (), 0, 0, is_dry=is_dry)

    assert 2 == len(done.kept)
    assert not [name for name in bucket.bodies() if name.endswith(tuple(KEYS.values())[:2])]
    assert C == bucket.current()


@sealed
@parts
def test_a_prune_keeps_the_other_releases_whole(bucket: Bucket, part: str, reason: str) -> None:
    bucket.publish_all(B, A, C)
    seal(bucket, part, reason)

    assert () == prune(bucket.store, (), 20, 0, is_dry=False).removed

    assert C == bucket.current()


@sealed
@parts
def test_promote_replaces_it_in_the_target_and_refuses_it_in_the_source(
    bucket: Bucket, part: str, reason: str
) -> None:
    settings = load_settings(
        {"AWS_BUCKET": bucket.server.bucket, "KEY_PATH": "dev", "DEST_PATH": "/nowhere"}
    )[0]
    dev = Bucket(bucket.server, bucket.folder, settings)

    def bring() -> str:
        return promote(
            dev.store, bucket.store, None, Origin(), lambda *_: None, Progress(), is_dry=False
        ).result

    dev.publish(A)
    assert "promoted" == bring()
    seal(bucket, part, reason)
    assert "promoted" == bring()
    assert A == bucket.current()
    seal(bucket, part, reason, "dev/")
    assert reason == failure(bring).reason


@sealed
def test_a_large_bundle_that_cannot_be_read_is_uploaded_again_at_once(
    bucket: Bucket, reason: str
) -> None:
    """A killed publish left it; its age and size are those of a good one."""
    bucket.store.part_bytes = 10
    bucket.server.put(PREFIX + KEYS["bundle"], OLD.bundle_bytes)
    seal(bucket, "bundle", reason)

    bucket.publish(A)

    assert A == bucket.current()
