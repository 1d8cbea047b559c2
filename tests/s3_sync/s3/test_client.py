"""Requests to S3: their contents, retries, credentials, regions and endpoints."""

import asyncio
from typing import Any

import pytest

from s3_sync.s3.client import ATTEMPTS, USER_AGENT, S3Client
from s3_sync.s3.pool import Patience
from s3_sync.s3.refusals import ObjectError, ObjectMoved, Operation, SourceError
from s3_sync.s3.wire import WireError
from sidecar_runtime.aws.credentials import ANONYMOUS, Credentials
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from tests.s3_sync.given import AT_ONCE, GIVEN, Given, config_of, play
from tests.support.aws.fake_s3 import ACCESS_KEY, SECRET_KEY, FakeS3, error
from tests.support.aws.s3_refusals import Identity
from tests.support.http.faults import answer_with, reset, truncate, with_headers
from tests.support.http.loopback import Answer, Request
from tests.support.raising import raised
from tests.support.waiting import wait_until

OLD = Credentials("AKIDOLD", "old-secret", "old-token")
NEW = Credentials("AKIDNEW", "new-secret", "new-token")


@pytest.fixture
def s3(s3: FakeS3) -> FakeS3:
    s3.put("dags/a b+ü.py", b"hello")
    return s3


class Body:
    """The received chunks, one list per attempt."""

    def __init__(self) -> None:
        self.attempts: list[list[bytes]] = []

    def restart(self) -> None:
        self.attempts.append([])

    def write(self, chunk: bytes) -> None:
        self.attempts[-1].append(chunk)

    @property
    def whole(self) -> bytes:
        return b"".join(self.attempts[-1])


async def get(client: S3Client, body: Body | None = None, etag: str = "") -> dict[str, str]:
    md5_of_hello = "5d41402abc4b2a76b9719d911017c592"
    return await client.get_object("dags/a b+ü.py", etag or md5_of_hello, 5, body or Body())


async def list_all(client: S3Client) -> bytes:
    return await client.list_page(None)


def region_of(request: Request) -> str:
    return request.headers["authorization"].split("Credential=")[1].split("/")[2]


def key_of(request: Request) -> str:
    return request.headers["authorization"].split("Credential=")[1].split("/")[0]


def failure(
    s3: FakeS3, scene: Any, chain: Given | None = None, patience: Patience = AT_ONCE
) -> SidecarError:
    return raised(SidecarError, play, s3, scene, chain, patience=patience)


# --- requests


def test_requests_one_page_of_the_prefix(s3: FakeS3) -> None:
    counts: list[Operation] = []
    s3.identities = {ACCESS_KEY: Identity(SECRET_KEY)}

    page = play(s3, list_all, counts=counts)

    assert b"<ListBucketResult" in page
    (request,) = s3.requests
    asked = {"list-type": "2", "encoding-type": "url", "max-keys": "1000", "prefix": "dags/"}
    assert asked == request.query
    assert ("GET", f"/{s3.bucket}") == (request.method, request.raw_path)
    assert USER_AGENT == request.headers["user-agent"]
    assert ["list"] == counts


def test_sends_the_continuation_token_unchanged(s3: FakeS3) -> None:
    token = "1/+=&? ü%20"
    s3.inject(answer_with(Answer(200, {}, b"page")))

    play(s3, lambda client: client.list_page(token))

    assert token == s3.requests[0].query["continuation-token"]


def test_gets_the_listed_version_of_an_object(s3: FakeS3) -> None:
    counts: list[Operation] = []
    body = Body()
    s3.identities = {ACCESS_KEY: Identity(SECRET_KEY)}

    headers = play(s3, lambda client: get(client, body), counts=counts)

    assert b"hello" == body.whole
    assert "5" == headers["content-length"]
    (request,) = s3.requests
    assert f"/{s3.bucket}/dags/a%20b%2B%C3%BC.py" == request.target
    assert '"5d41402abc4b2a76b9719d911017c592"' == request.headers["if-match"]
    assert ("ENABLED", "identity") == (
        request.headers["x-amz-checksum-mode"],
        request.headers["accept-encoding"],
    )
    assert ["get"] == counts


def test_sends_and_signs_the_requester_pays_header_only_if_configured(s3: FakeS3) -> None:
    s3.identities = {ACCESS_KEY: Identity(SECRET_KEY)}

    async def scene(client: S3Client) -> None:
        await client.list_page(None)
        await get(client)

    play(s3, scene)
    assert not any("x-amz-request-payer" in request.headers for request in s3.requests)
    s3.forget()
    play(s3, scene, pays=True)

    assert ["requester"] * 2 == [one.headers["x-amz-request-payer"] for one in s3.requests]
    assert all("x-amz-request-payer" in one.headers["authorization"] for one in s3.requests)


def test_anonymous_requests_are_not_signed(s3: FakeS3) -> None:
    async def scene(client: S3Client) -> None:
        await client.list_page(None)
        await get(client)

    play(s3, scene, Given(config_of(s3), ANONYMOUS))

    assert 2 == len(s3.requests)
    assert not any("authorization" in request.headers for request in s3.requests)


# --- objects that change


def test_a_changed_object_raises_object_moved(s3: FakeS3) -> None:
    for honors in (True, False):
        s3.honors_if_match = honors
        with pytest.raises(ObjectMoved):
            play(s3, lambda client: get(client, etag="0" * 32))


def test_a_missing_object_raises_object_moved_without_a_retry(s3: FakeS3) -> None:
    s3.objects.clear()

    with pytest.raises(ObjectMoved):
        play(s3, get)

    assert 1 == len(s3.requests)


@pytest.mark.parametrize(
    "etag", ['W/"5d41402abc4b2a76b9719d911017c592"', "5d41402abc4b2a76b9719d911017c592"]
)
def test_accepts_weak_and_unquoted_etags(s3: FakeS3, etag: str) -> None:
    s3.inject(with_headers(ETag=etag))
    body = Body()

    play(s3, lambda client: get(client, body))

    assert b"hello" == body.whole


# --- retries


@pytest.mark.parametrize(
    "fault",
    [error(503, "SlowDown"), error(500, "InternalError"), error(502, ""), reset(), truncate(3),
     error(400, "RequestTimeout", "Your socket connection was not used in time.")],
    ids=["throttled", "failed", "gateway", "reset", "truncated", "timeout"],
)  # fmt: skip
def test_retries_transient_failures(s3: FakeS3, fault: Any) -> None:
    s3.inject(fault, times=ATTEMPTS - 1)
    body = Body()
    counts: list[Operation] = []

    play(s3, lambda client: get(client, body), counts=counts)

    assert b"hello" == body.whole
    assert ATTEMPTS == len(body.attempts) == len(counts) == len(s3.requests)


@pytest.mark.parametrize(
    ("scene", "reason"), [(get, "access_denied_get"), (list_all, "access_denied_list")]
)
def test_does_not_retry_a_denied_request(s3: FakeS3, scene: Any, reason: str) -> None:
    s3.inject(error(403, "AccessDenied"))

    assert reason == failure(s3, scene).reason
    assert 1 == len(s3.requests)


def test_does_not_retry_after_a_timeout(s3: FakeS3) -> None:
    patience = AT_ONCE._replace(answer_seconds=0.05)
    s3.inject(lambda exchange: exchange.hang())

    try:
        assert "request_timeout" == failure(s3, list_all, patience=patience).reason
        wait_until(lambda: bool(s3.requests), "the server reads the request")
        assert 1 == len(s3.requests)
    finally:
        s3.release()


def test_the_time_limit_grows_with_the_size_of_the_body(s3: FakeS3) -> None:
    patience = AT_ONCE._replace(answer_seconds=0.0, slowest_bytes_per_second=0.5)

    play(s3, get, patience=patience)


def test_an_exception_of_the_receiver_propagates_without_a_retry(s3: FakeS3) -> None:
    class Full(Body):
        def write(self, chunk: bytes) -> None:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        play(s3, lambda client: get(client, Full()))

    assert 1 == len(s3.requests)


# --- a proxy that forwards plain http


@pytest.mark.parametrize(
    ("operation", "kind"), [(list_all, SourceError), (get, ObjectError)], ids=["list", "get"]
)
@pytest.mark.parametrize("user", ["", "user:hunter2@"])
def test_a_403_that_is_not_from_s3_is_attributed_to_the_forwarding_proxy(
    s3: FakeS3, monkeypatch: pytest.MonkeyPatch, operation: Any, kind: type[Exception], user: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://{user}127.0.0.1:{s3.port}")
    monkeypatch.setenv("NO_PROXY", "")
    chain = Given(config_of(s3, endpoint_url="http://minio:9000"))
    s3.inject(answer_with(Answer(403, {"Via": "1.1 squid"}, b"<html>Access Denied</html>")))

    found = failure(s3, operation, chain)
    s3.heal()
    s3.inject(error(403, "AccessDenied"))
    of_s3 = failure(s3, operation, chain)

    assert isinstance(found, kind)
    assert "proxy_refused" == found.reason
    assert f"the proxy http://127.0.0.1:{s3.port}" in found.message
    assert "hunter2" not in found.message
    assert of_s3.reason.startswith("access_denied_")


def test_a_403_without_a_code_is_not_the_answer_of_s3(s3: FakeS3) -> None:
    s3.inject(answer_with(Answer(403, {}, b"<html>Access Denied</html>")))

    assert "answer_foreign" == failure(s3, list_all).reason


# --- rotated credentials


@pytest.mark.parametrize("code", ["ExpiredToken", "InvalidAccessKeyId", "InvalidToken"])
def test_fetches_rotated_credentials_and_repeats_the_request(s3: FakeS3, code: str) -> None:
    chain = Given(config_of(s3), OLD, NEW)
    s3.inject(error(403, code), lambda request: key_of(request) == "AKIDOLD")

    play(s3, list_all, chain)

    assert ["AKIDOLD", "AKIDNEW"] == [key_of(request) for request in s3.requests]
    assert "new-token" == s3.requests[1].headers["x-amz-security-token"]
    assert 1 == chain.forgotten


def test_concurrent_requests_fetch_rotated_credentials_once(s3: FakeS3) -> None:
    chain = Given(config_of(s3), OLD, NEW, GIVEN)
    s3.inject(error(400, "ExpiredToken"), lambda request: key_of(request) == "AKIDOLD")

    async def scene(client: S3Client) -> None:
        await asyncio.gather(*(get(client) for _ in range(8)))

    play(s3, scene, chain)

    assert 1 == chain.forgotten


def test_reports_the_access_key_if_the_new_credentials_are_refused(s3: FakeS3) -> None:
    chain = Given(config_of(s3), OLD, NEW)
    s3.inject(error(400, "ExpiredToken", "The provided token has expired."))

    found = failure(s3, list_all, chain)

    assert "credentials_expired" == found.reason
    assert "the access key AKIDNEW" in found.message
    assert "new-secret" not in found.message and "new-token" not in found.message
    assert (2, 0) == (len(s3.requests), chain.asked_who)


def test_asks_sts_for_the_denied_identity_only_if_s3_does_not_report_it(s3: FakeS3) -> None:
    chain = Given(config_of(s3))
    s3.inject(error(403, "AccessDenied", "Access Denied"), times=1)
    assert (
        "arn:aws:iam::123456789012:role/dags is not allowed to"
        in failure(s3, list_all, chain).message
    )
    s3.inject(error(403, "AccessDenied", "User: arn:aws:iam::1:role/x is not authorized"))
    assert "arn:aws:iam::1:role/x is not allowed to" in failure(s3, list_all, chain).message

    assert 1 == chain.asked_who


# --- buckets in other regions


@pytest.mark.parametrize("answer", ["moved", "redirect", "malformed"])
def test_keeps_using_the_region_that_s3_reports_for_the_bucket(s3: FakeS3, answer: str) -> None:
    s3.region, s3.region_answer = "eu-central-1", answer  # type: ignore[assignment]
    chain = Given(config_of(s3, region="us-east-1"))

    async def scene(client: S3Client) -> str:
        await client.list_page(None)
        await get(client)
        client.begin_cycle(Fence())
        await get(client)
        return client.region

    assert "eu-central-1" == play(s3, scene, chain)
    assert ["us-east-1", *["eu-central-1"] * 3] == [region_of(one) for one in s3.requests]


# --- from cycle to cycle


def test_uses_another_endpoint_from_the_next_cycle_on(s3: FakeS3) -> None:
    with FakeS3() as other:
        chain = Given(config_of(s3))

        async def scene(client: S3Client) -> None:
            await client.list_page(None)
            chain.config = chain.config._replace(endpoint_url=other.endpoint)
            await client.list_page(None)
            client.begin_cycle(Fence())
            await client.list_page(None)

        play(s3, scene, chain)

        assert (2, 1) == (len(s3.requests), len(other.requests))


@pytest.mark.parametrize("content", [None, "not a certificate"])
def test_an_unreadable_ca_bundle_is_reported_with_its_path(
    s3: FakeS3, tmp_path: Any, content: str | None
) -> None:
    bundle = tmp_path / "ca.pem"
    if content is not None:
        bundle.write_text(content)
    chain = Given(config_of(s3, endpoint_url="https://minio.example", ca_bundle=str(bundle)))

    found = failure(s3, list_all, chain)

    assert isinstance(found, SourceError)
    assert "tls_failed" == found.reason
    assert "Check AWS_CA_BUNDLE and REQUESTS_CA_BUNDLE." == found.advice
    assert str(bundle) in found.message


def test_error_classes_distinguish_source_object_and_connection(s3: FakeS3) -> None:
    s3.inject(error(403, "AccessDenied"))

    with pytest.raises(SourceError):
        play(s3, list_all)
    with pytest.raises(ObjectError):
        play(s3, get)
    s3.stop()
    found = raised(WireError, play, s3, get)
    s3.start()
    assert "endpoint_unreachable" == found.reason
