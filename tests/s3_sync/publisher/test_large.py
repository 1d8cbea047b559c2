"""Large bundles: multipart uploads, and bundles that a failed publish has uploaded."""

import random
from datetime import timedelta

import pytest

from s3_sync.publisher.prune import UPLOAD_SECONDS, prune
from s3_sync.release.names import POINTER_KEY, bundle_key
from tests.s3_sync.bucket import Bucket
from tests.s3_sync.failing import failure
from tests.support.aws.fake_s3 import error
from tests.support.aws.writable_s3 import (
    is_begin,
    is_completion,
    is_part,
    is_write,
    lose_answer,
)
from tests.support.http.faults import first, reset
from tests.support.s3_sync.publishing import PREFIX, read_release
from tests.support.s3_sync.releases import ABSENT, AT, make_release

NOISE = random.Random(5).randbytes(5_000)
LARGE = {"a.py": b"a = 1\n", "model.bin": NOISE}
SMALL = {"a.py": b"a = 1\n"}
BUNDLE = PREFIX + bundle_key(make_release(LARGE).manifest.head.bundle_sha256)
PARTS = 6


@pytest.fixture
def large(bucket: Bucket) -> Bucket:
    """A bucket whose publisher uploads bundles of more than 1,000 bytes in parts."""
    bucket.store.part_bytes = 1_000
    return bucket


def test_uploads_a_large_bundle_in_parts(large: Bucket) -> None:
    large.publish(LARGE)

    assert LARGE == large.current()
    assert PARTS == len(large.server.seen(is_part))
    assert {} == large.server.uploads


def test_uploads_a_small_bundle_with_one_request(large: Bucket) -> None:
    large.publish(SMALL)

    assert SMALL == large.current()
    assert [] == large.server.seen(is_begin)


def test_a_lost_connection_repeats_only_one_part(large: Bucket) -> None:
    large.server.inject(reset(), lambda request: request.query.get("partNumber") == "3", times=1)

    large.publish(LARGE)

    assert LARGE == large.current()
    assert PARTS + 1 == len(large.server.seen(is_part))


def test_publish_succeeds_if_the_response_to_the_completion_is_lost(large: Bucket) -> None:
    large.server.inject(lose_answer, is_completion, times=1)

    large.publish(LARGE)

    assert LARGE == large.current()
    assert 2 == len(large.server.seen(is_completion))


def test_publish_fails_if_its_upload_is_aborted_from_outside(large: Bucket) -> None:
    """A lifecycle rule may abort it; the damaged bundle under its key has the same size."""
    large.publish_all(LARGE, SMALL)
    large.server.put(BUNDLE, bytes(len(large.bodies()[BUNDLE])))
    ended = error(404, "NoSuchUpload")
    large.server.inject(ended, is_completion)

    assert "release_incomplete" == failure(large.publish, LARGE).reason

    assert SMALL == read_release(large.bodies())


def test_aborts_the_upload_if_a_part_is_refused(large: Bucket) -> None:
    large.publish(SMALL)
    refused = error(403, "AccessDenied")
    large.server.inject(refused, lambda request: request.query.get("partNumber") == "3")

    assert "access_denied_put" == failure(large.publish, LARGE).reason

    assert {} == large.server.uploads
    assert BUNDLE not in large.bodies()
    assert SMALL == large.current()


def test_an_upload_that_cannot_be_aborted_leaves_no_object(large: Bucket) -> None:
    large.server.inject(error(403, "AccessDenied"), is_completion)
    large.server.inject(error(403, "AccessDenied"), lambda request: request.method == "DELETE")

    assert "access_denied_put" == failure(large.publish, LARGE).reason

    assert 1 == len(large.server.uploads)
    assert {} == large.bodies()


def publish_but_the_manifest(bucket: Bucket) -> None:
    """Publish, but fail after the bundle was uploaded."""
    bucket.server.inject(error(403, "AccessDenied"), is_write(".manifest"))
    failure(bucket.publish, LARGE)
    bucket.server.heal()
    bucket.server.forget()
    assert [BUNDLE] == list(bucket.bodies())


def test_does_not_upload_a_large_bundle_that_already_exists(large: Bucket) -> None:
    publish_but_the_manifest(large)

    assert "published" == large.publish(LARGE).result

    assert [] == large.server.seen(is_begin)
    assert LARGE == large.current()


@pytest.mark.parametrize("state", ["damaged", "cut off", "old"])
def test_uploads_a_large_bundle_again_if_it_is_damaged_or_old(large: Bucket, state: str) -> None:
    """A prune may be about to remove an old bundle."""
    publish_but_the_manifest(large)
    stored = large.server.objects[BUNDLE]
    body, at = stored.body, stored.last_modified
    if state == "old":
        at -= timedelta(seconds=UPLOAD_SECONDS / 2 + 60)
    else:
        body = bytes(len(body)) if state == "damaged" else body[:-1]
    large.server.put(BUNDLE, body, at=at)

    assert "published" == large.publish(LARGE).result

    assert PARTS == len(large.server.seen(is_part))
    assert LARGE == large.current()
    assert PREFIX + POINTER_KEY in large.bodies()


def test_prune_keeps_a_bundle_that_a_publish_reuses_meanwhile(large: Bucket) -> None:
    """The publish runs after the prune deleted the manifests, before it deletes bundles."""
    loose = f"{PREFIX}{bundle_key(ABSENT)}"
    large.server.put(loose, b"", at=AT - timedelta(days=2))
    for files in (LARGE, {"b.py": b""}, SMALL):
        large.publish(files)
    publish = first(lambda: large.publish(LARGE))
    large.server.inject(publish, lambda r: r.method == "HEAD" and r.path.endswith(loose), times=1)

    prune(large.store, [], 0, 0, is_dry=False)

    assert loose not in large.bodies()
    assert LARGE == large.current()
