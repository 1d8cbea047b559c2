"""Publishes and what the store answers: lost, half, odd, refused and unconditional answers."""

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from s3_sync.publisher.catalog import ReleaseError
from s3_sync.release.names import POINTER_KEY
from tests.s3_sync.bucket import A, B, Bucket, C
from tests.s3_sync.failing import failure
from tests.support.fake_s3 import access_denied, error, is_get
from tests.support.faults import truncate
from tests.support.loopback import Exchange
from tests.support.publishing import PREFIX, read_release
from tests.support.releases import make_release
from tests.support.writable_s3 import forbid_missing, is_write, lose_answer


def test_a_lost_answer_is_no_conflict(bucket: Bucket) -> None:
    bucket.publish(A)
    for end in (".zip", ".json", POINTER_KEY):
        bucket.server.inject(lose_answer, is_write(end), times=1)

    outcome = bucket.publish(B)

    assert "published" == outcome.result
    assert B == bucket.current()
    assert 1 == len(bucket.history())


def test_without_a_temporary_folder_nothing_is_published(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))

    assert "temporary_failed" == failure(bucket.publish, A).reason
    assert [] == bucket.writes()


@pytest.mark.parametrize("name", [POINTER_KEY, ".manifest"])
def test_half_an_answer_is_not_taken_for_the_whole_object(bucket: Bucket, name: str) -> None:
    bucket.publish(A)
    before = bucket.bodies()
    bucket.server.inject(truncate(20), lambda request: request.path.endswith(name))

    assert "connection_lost" == failure(bucket.publish, B if name == POINTER_KEY else A).reason
    assert before == bucket.bodies()


def test_an_answer_that_s3_does_not_give_is_a_named_error(bucket: Bucket) -> None:
    """A proxy, or a store that is not quite S3."""
    bucket.server.inject(error(404, "Odd", "Not here"), is_write())

    found = failure(bucket.publish, A)

    assert "client_error" == found.reason
    assert "S3 rejected the request for s3://dags-bucket/dags/" in found.message
    assert "Not here" in found.message and found.advice


def test_to_delete_what_is_not_there_is_fine_whatever_a_store_says(bucket: Bucket) -> None:
    bucket.server.inject(error(404, "NoSuchKey"), is_write())

    bucket.store.delete("pins/1")

    assert 1 == len(bucket.server.seen(is_write()))


def test_a_conflict_of_requests_is_tried_again(bucket: Bucket) -> None:
    for end in (".json", POINTER_KEY):
        fault = error(409, "ConditionalRequestConflict", "Please retry")
        bucket.server.inject(fault, is_write(end), times=2)

    assert "published" == bucket.publish(A).result
    assert A == bucket.current()


def test_a_server_that_stumbles_is_asked_again(bucket: Bucket) -> None:
    bucket.server.inject(error(503, "SlowDown"), times=2)
    bucket.server.inject(error(500, "InternalError"), is_write(".zip"), times=1)

    assert "published" == bucket.publish(A).result
    assert A == bucket.current()


@pytest.mark.parametrize("conditions", ["ignored", "refused"])
def test_without_conditional_writes_it_is_published_and_told(
    bucket: Bucket, conditions: str
) -> None:
    bucket.server.conditions = conditions  # type: ignore[assignment]

    outcomes = [bucket.publish(A), bucket.publish(B), bucket.publish(A)]

    assert [("published", False)] * 3 == [(o.result, o.is_guarded) for o in outcomes]
    assert A == bucket.current()


@pytest.mark.parametrize("conditions", ["obeyed", "ignored", "refused"])
@pytest.mark.parametrize("is_first", [True, False])
def test_the_second_publisher_fails_where_it_can_be_seen(
    bucket: Bucket, conditions: str, is_first: bool
) -> None:
    bucket.server.conditions = conditions  # type: ignore[assignment]
    if not is_first:
        bucket.publish(A)
    bucket.judge = lambda: bucket.put(make_release(B))

    with pytest.raises(ReleaseError, match="meanwhile"):
        bucket.publish(C)

    assert B == bucket.current()


def test_without_conditional_writes_the_overwritten_publisher_fails(bucket: Bucket) -> None:
    bucket.server.conditions = "ignored"
    bucket.publish(A)

    def overwrite(exchange: Exchange) -> None:
        answer = exchange.good()
        bucket.put(make_release(B))
        exchange.send(answer)

    bucket.server.inject(overwrite, is_write(POINTER_KEY), times=1)

    with pytest.raises(ReleaseError, match="meanwhile"):
        bucket.publish(C)

    assert B == bucket.current()


@pytest.mark.parametrize("end", [".zip", ".json", POINTER_KEY])
def test_a_write_that_is_not_allowed_is_reported_with_action_resource_and_identity(
    bucket: Bucket, end: str
) -> None:
    bucket.publish(A)
    arn = f"arn:aws:s3:::{bucket.server.bucket}/{PREFIX}x"
    denied = access_denied("s3:PutObject", arn, "arn:aws:iam::1:user/ci")
    bucket.server.inject(denied, is_write(end))

    found = failure(bucket.publish, B)

    assert ("access_denied_put", 3) == (found.reason, found.exit_code)
    assert "arn:aws:iam::1:user/ci" in found.message
    assert "s3:PutObject on arn:aws:s3:::dags-bucket/dags/*" in found.advice
    assert A == read_release(bucket.bodies())


def test_a_missing_object_that_looks_forbidden_is_looked_for_in_the_listing(
    bucket: Bucket,
) -> None:
    bucket.server.inject(forbid_missing)

    bucket.publish(A)
    outcome = bucket.publish(B)

    assert outcome.before is not None
    assert B == bucket.current()


def test_a_pointer_that_may_not_be_read_is_no_first_publish(bucket: Bucket) -> None:
    bucket.publish(A)
    bucket.server.inject(error(403, "AccessDenied"), is_get(PREFIX + POINTER_KEY))

    assert "access_denied_get" == failure(bucket.publish, B).reason
    assert A == bucket.current()


def test_an_unknown_access_key_is_named(bucket: Bucket) -> None:
    bucket.server.inject(error(403, "InvalidAccessKeyId", "It does not exist."))

    found = failure(bucket.publish, A)

    assert "S3 rejected the access key AKIA" in found.message
    assert bucket.server.environment()["AWS_SECRET_ACCESS_KEY"] not in str(found)


def test_a_publisher_pays_where_the_bucket_wants_it_of_others(
    bucket: Bucket, tmp_path: Path
) -> None:
    settings = replace(bucket.settings, bucket_access="requester-pays")

    Bucket(bucket.server, tmp_path / "theirs", settings).publish(A)

    paid = {one.headers.get("x-amz-request-payer") for one in bucket.server.requests}
    assert {"requester"} == paid


@pytest.mark.parametrize("has_keys", [True, False])
def test_a_public_bucket_is_read_by_nobody(
    bucket: Bucket, tmp_path: Path, has_keys: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys that are there for something else go nowhere."""
    bucket.publish(A)
    before = len(bucket.server.requests)
    if not has_keys:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    settings = replace(bucket.settings, bucket_access="public")

    found = Bucket(bucket.server, tmp_path / "theirs", settings).store.read(POINTER_KEY)

    assert found is not None
    assert {None} == {one.headers.get("authorization") for one in bucket.server.requests[before:]}
