"""Publishing with lost, truncated, unexpected or refused responses of the store."""

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from s3_sync.publisher.catalog import ReleaseError
from s3_sync.publisher.store import Store
from s3_sync.release.names import POINTER_KEY
from s3_sync.settings import load_settings
from tests.s3_sync.bucket import A, B, Bucket, C
from tests.s3_sync.failing import failure
from tests.support.aws.fake_s3 import access_denied, error, is_get
from tests.support.aws.writable_s3 import forbid_missing, is_write, lose_answer
from tests.support.http.faults import truncate
from tests.support.http.loopback import Exchange
from tests.support.s3_sync.publishing import PREFIX, read_release
from tests.support.s3_sync.releases import make_release


def test_publish_succeeds_if_the_responses_to_its_writes_are_lost(bucket: Bucket) -> None:
    bucket.publish(A)
    for end in (".zip", ".json", POINTER_KEY):
        bucket.server.inject(lose_answer, is_write(end), times=1)

    outcome = bucket.publish(B)

    assert "published" == outcome.result
    assert B == bucket.current()
    assert 1 == len(bucket.history())


def test_publishes_nothing_without_a_temporary_folder(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))

    assert "temporary_failed" == failure(bucket.publish, A).reason
    assert [] == bucket.writes()


@pytest.mark.parametrize("name", [POINTER_KEY, ".manifest"])
def test_fails_and_changes_nothing_on_a_truncated_response(bucket: Bucket, name: str) -> None:
    bucket.publish(A)
    before = bucket.bodies()
    bucket.server.inject(truncate(20), lambda request: request.path.endswith(name))

    assert "connection_lost" == failure(bucket.publish, B if name == POINTER_KEY else A).reason
    assert before == bucket.bodies()


@pytest.mark.parametrize("name", [POINTER_KEY, ".manifest", ".zip"])
def test_repeats_a_read_that_breaks_off(bucket: Bucket, name: str) -> None:
    bucket.publish(A)
    bucket.server.inject(
        truncate(20), lambda r: r.method == "GET" and r.path.endswith(name), times=2
    )

    assert "unchanged" == bucket.publish(A).result


LEAKS = {
    "token": {"AWS_SESSION_TOKEN": "THESECRET\n"},
    "key": {"AWS_ACCESS_KEY_ID": "THESECRET\n"},
    "endpoint": {"AWS_ENDPOINT_URL": "http://user:THESECRET@127.0.0.1:9"},
}


@pytest.mark.parametrize("leak", LEAKS)
def test_no_error_shows_a_secret_with_a_line_break_or_of_the_endpoint(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, leak: str
) -> None:
    """botocore quotes them, and `echo` without -n ends a secret with a line break."""
    for name, value in LEAKS[leak].items():
        monkeypatch.setenv(name, value)
    given = {"AWS_BUCKET": bucket.server.bucket, "KEY_PATH": "dags", "DEST_PATH": "/nowhere"}
    store = Store(load_settings(given)[0])

    error = failure(store.read, POINTER_KEY)

    reason = "endpoint_unreachable" if leak == "endpoint" else "credentials_invalid"
    assert reason == error.reason
    assert "THESECRET" not in f"{error.message}{error.advice}"


def test_reports_an_unknown_error_code_with_its_message(bucket: Bucket) -> None:
    """A proxy or an S3-compatible store may return it."""
    bucket.server.inject(error(404, "Odd", "Not here"), is_write())

    found = failure(bucket.publish, A)

    assert "client_error" == found.reason
    assert "S3 rejected the request for s3://dags-bucket/dags/" in found.message
    assert "Not here" in found.message and found.advice


def test_deleting_a_missing_object_succeeds_even_if_the_store_returns_404(bucket: Bucket) -> None:
    bucket.server.inject(error(404, "NoSuchKey"), is_write())

    bucket.store.delete("pins/1")

    assert 1 == len(bucket.server.seen(is_write()))


def test_retries_after_a_conditional_request_conflict(bucket: Bucket) -> None:
    for end in (".json", POINTER_KEY):
        fault = error(409, "ConditionalRequestConflict", "Please retry")
        bucket.server.inject(fault, is_write(end), times=2)

    assert "published" == bucket.publish(A).result
    assert A == bucket.current()


def test_retries_after_a_server_error(bucket: Bucket) -> None:
    bucket.server.inject(error(503, "SlowDown"), times=2)
    bucket.server.inject(error(500, "InternalError"), is_write(".zip"), times=1)

    assert "published" == bucket.publish(A).result
    assert A == bucket.current()


@pytest.mark.parametrize("conditions", ["ignored", "refused"])
def test_publishes_without_conditional_writes_and_reports_it(
    bucket: Bucket, conditions: str
) -> None:
    bucket.server.conditions = conditions  # type: ignore[assignment]

    outcomes = [bucket.publish(A), bucket.publish(B), bucket.publish(A)]

    assert [("published", False)] * 3 == [(o.result, o.is_guarded) for o in outcomes]
    assert A == bucket.current()


@pytest.mark.parametrize("conditions", ["obeyed", "ignored", "refused"])
@pytest.mark.parametrize("is_first", [True, False])
def test_the_second_publisher_fails_with_and_without_conditional_writes(
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
def test_reports_action_resource_and_identity_of_a_denied_write(bucket: Bucket, end: str) -> None:
    bucket.publish(A)
    arn = f"arn:aws:s3:::{bucket.server.bucket}/{PREFIX}x"
    denied = access_denied("s3:PutObject", arn, "arn:aws:iam::1:user/ci")
    bucket.server.inject(denied, is_write(end))

    found = failure(bucket.publish, B)

    assert ("access_denied_put", 3) == (found.reason, found.exit_code)
    assert "arn:aws:iam::1:user/ci" in found.message
    assert "s3:PutObject on arn:aws:s3:::dags-bucket/dags/*" in found.advice
    assert A == read_release(bucket.bodies())


def test_looks_for_an_object_in_the_listing_if_s3_returns_403(bucket: Bucket) -> None:
    bucket.server.inject(forbid_missing)

    bucket.publish(A)
    outcome = bucket.publish(B)

    assert outcome.before is not None
    assert B == bucket.current()


def test_a_denied_read_of_the_pointer_does_not_count_as_first_publish(bucket: Bucket) -> None:
    bucket.publish(A)
    bucket.server.inject(error(403, "AccessDenied"), is_get(PREFIX + POINTER_KEY))

    assert "access_denied_get" == failure(bucket.publish, B).reason
    assert A == bucket.current()


def test_reports_an_unknown_access_key_without_its_secret(bucket: Bucket) -> None:
    bucket.server.inject(error(403, "InvalidAccessKeyId", "It does not exist."))

    found = failure(bucket.publish, A)

    assert "S3 rejected the access key AKIA" in found.message
    assert bucket.server.environment()["AWS_SECRET_ACCESS_KEY"] not in str(found)


def test_sends_the_requester_pays_header_with_every_request(bucket: Bucket, tmp_path: Path) -> None:
    settings = replace(bucket.settings, bucket_access="requester-pays")

    Bucket(bucket.server, tmp_path / "theirs", settings).publish(A)

    paid = {one.headers.get("x-amz-request-payer") for one in bucket.server.requests}
    assert {"requester"} == paid


@pytest.mark.parametrize("has_keys", [True, False])
def test_reads_a_public_bucket_without_credentials(
    bucket: Bucket, tmp_path: Path, has_keys: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys that exist for another purpose are not used."""
    bucket.publish(A)
    before = len(bucket.server.requests)
    if not has_keys:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    settings = replace(bucket.settings, bucket_access="public")

    found = Bucket(bucket.server, tmp_path / "theirs", settings).store.read(POINTER_KEY)

    assert found is not None
    assert {None} == {one.headers.get("authorization") for one in bucket.server.requests[before:]}
