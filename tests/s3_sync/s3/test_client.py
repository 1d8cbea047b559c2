"""
Requests to S3: their contents, retries, credentials, regions, proxies and certificates.
"""

import asyncio
import base64
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from s3_sync.reasons import ObjectMoved
from s3_sync.s3.client import ATTEMPTS, S3Client
from s3_sync.s3.http import PROXY_HEAD_LIMIT_BYTES, Headers
from s3_sync.s3.refusals import Operation
from sidecar_runtime.aws.credentials import Credentials
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from tests.s3_sync.given import GIVEN, Body, Given, config, config_of, play
from tests.support.aws.fake_s3 import ACCESS_KEY, SECRET_KEY, FakeS3, error, is_get
from tests.support.aws.s3_refusals import Identity
from tests.support.http.certificates import self_signed
from tests.support.http.fake_proxy import FakeProxy
from tests.support.http.faults import answer_with, raw, reset, truncate
from tests.support.http.loopback import Answer, Request
from tests.support.raising import raised

OLD = Credentials("AKIDOLD", "old-secret", "old-token")
NEW = Credentials("AKIDNEW", "new-secret", "new-token")


@pytest.fixture
def s3(s3: FakeS3) -> FakeS3:
    s3.put("dags/a b+ü.py", b"hello")
    return s3


async def get(client: S3Client, body: Body | None = None) -> Headers:
    """Get the object, which must still contain `hello`."""
    return await client.get_object(
        "dags/a b+ü.py", "5d41402abc4b2a76b9719d911017c592", 5, body or Body()
    )


async def list_all(client: S3Client) -> bytes:
    return await client.list_page(None)


async def list_and_get(client: S3Client) -> None:
    await client.list_page(None)
    await get(client)


def scope_of(request: Request) -> list[str]:
    """Return the access key, the day and the region of a signature."""
    return request.headers["authorization"].split("Credential=")[1].split("/")[:3]


def failure(s3: FakeS3, scene: Any, chain: Given | None = None) -> SidecarError:
    return raised(SidecarError, play, s3, scene, chain)


# --- requests


def test_lists_a_page_and_gets_the_listed_version_of_an_object(s3: FakeS3) -> None:
    counts: list[Operation] = []
    body = Body()
    s3.identities = {ACCESS_KEY: Identity(SECRET_KEY)}

    async def scene(client: S3Client) -> Headers:
        assert b"<KeyCount>1<" in await client.list_page("ZGFncy8=")  # of FakeS3: dags/
        return await get(client, body)

    headers = play(s3, scene, counts=counts)

    listing, got = s3.requests
    said = {"encoding-type": "url", "prefix": "dags/", "continuation-token": "ZGFncy8="}
    assert listing.query.items() >= said.items()
    assert f"/{s3.bucket}/dags/a%20b%2B%C3%BC.py" == got.target
    said = {"x-amz-checksum-mode": "ENABLED", "accept-encoding": "identity"}
    assert got.headers.items() >= said.items()
    assert (b"hello", "5", ["list", "get"]) == (
        body.whole,
        headers["content-length"],
        counts,
    )


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (400, "Unsupported header X-Amz-Checksum-Mode"),
        (501, "A header you provided implies functionality that is not implemented"),
        (501, "Header 'x-amz-checksum-mode' with value 'ENABLED' not implemented"),
    ],
)
def test_headers_that_a_store_refuses_are_left_out_afterwards(
    s3: FakeS3, status: int, said: str
) -> None:
    optional = {"x-amz-checksum-mode", "if-match"}
    s3.inject(
        error(status, "NotImplemented", said),
        lambda one: is_get()(one) and not optional.isdisjoint(one.headers),
    )
    bodies = Body(), Body()

    async def scene(client: S3Client) -> None:
        for body in bodies:
            await get(client, body)
        s3.put("dags/a b+ü.py", b"other")
        with pytest.raises(ObjectMoved):
            await get(client)

    play(s3, scene)

    assert [b"hello"] * 2 == [body.whole for body in bodies]
    assert [2, 0, 0, 0] == [len(optional & one.headers.keys()) for one in s3.requests]


def test_a_refusal_for_another_cause_leaves_no_header_out(s3: FakeS3) -> None:
    s3.inject(error(400, "InvalidRequest", "SSE-C"), is_get(), times=1)

    async def scene(client: S3Client) -> None:
        with pytest.raises(SidecarError):
            await get(client)
        await get(client)

    play(s3, scene)

    assert all("x-amz-checksum-mode" in one.headers for one in s3.requests)


def test_says_which_request_a_cycle_waits_for(s3: FakeS3) -> None:
    told: list[str] = []
    fence = Fence()

    class Listening(Body):
        def write(self, chunk: bytes) -> None:
            told.append(fence.step.partition("Z ")[2])

    async def scene(client: S3Client) -> None:
        await client.ensure_credentials(fence)
        await get(client, Listening())

    play(s3, scene)

    assert {f"it waits for {s3.endpoint[7:]} to get 'dags/a b+ü.py'"} == set(told)
    assert "" == fence.step


# --- retries


@pytest.mark.parametrize(
    "fault",
    [error(503, "SlowDown"), error(400, "RequestTimeout"), reset(), truncate(3)],
    ids=["throttled", "timeout", "reset", "truncated"],
)
def test_retries_transient_failures(s3: FakeS3, fault: Any) -> None:
    s3.inject(fault, times=ATTEMPTS - 1)
    body = Body()
    counts: list[Operation] = []

    play(s3, lambda client: get(client, body), counts=counts)

    assert b"hello" == body.whole
    assert ATTEMPTS == len(body.attempts) == len(counts) == len(s3.requests)


def test_an_exception_of_the_receiver_propagates_without_a_retry(s3: FakeS3) -> None:
    class Full(Body):
        def write(self, chunk: bytes) -> None:
            raise TimeoutError(110, "the volume is slow")

    with pytest.raises(TimeoutError, match="the volume is slow"):
        play(s3, lambda client: get(client, Full()))

    assert 1 == len(s3.requests)


def test_a_kept_connection_that_breaks_in_a_response_is_not_used_again(
    s3: FakeS3,
) -> None:
    """
    Only a request that the server has not begun to answer is sent again unnoticed.
    """
    counts: list[Operation] = []

    async def scene(client: S3Client) -> None:
        await list_all(client)
        s3.inject(truncate(3), times=1)
        await get(client)

    play(s3, scene, counts=counts)

    assert ["list", "get", "get"] == counts


# --- proxies

LOGIN = "user:p%40ss%3Aword"
AUTHORIZATION = f"Basic {base64.b64encode(b'user:p@ss:word').decode()}"


@pytest.fixture
def use_proxy(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """
    A function that selects the proxy of a scheme; its URL contains `{}` for the login.
    """

    def use(scheme: str, url: str) -> None:
        monkeypatch.setenv("NO_PROXY", "")
        monkeypatch.setenv(f"{scheme}_PROXY", url.format(f"{LOGIN}@"))

    return use


def test_sends_plain_http_to_the_proxy_in_absolute_form(
    s3: FakeS3, use_proxy: Callable[[str, str], None]
) -> None:
    use_proxy("HTTP", f"http://{{}}127.0.0.1:{s3.port}")
    s3.inject(answer_with(Answer(200, {}, b"hello")))

    async def scene(client: S3Client) -> list[bytes]:
        return [await list_all(client), await list_all(client)]

    assert [b"hello"] * 2 == play(
        s3, scene, Given(config(endpoint_url="http://store.example"))
    )
    for request in s3.requests:
        assert request.target.startswith(f"http://store.example/{s3.bucket}?")
        assert ("store.example", AUTHORIZATION) == (
            request.headers["host"],
            request.headers["proxy-authorization"],
        )


def test_sends_https_through_a_connect_tunnel(
    tmp_path: Path, use_proxy: Callable[[str, str], None]
) -> None:
    """The password goes to the proxy only."""
    tls, bundle = self_signed(tmp_path, "store.example")
    settings = config(endpoint_url="https://store.example", ca_bundle=str(bundle))
    with FakeS3(tls=tls) as s3, FakeProxy(s3.port) as proxy:
        use_proxy("HTTPS", f"http://{{}}127.0.0.1:{proxy.port}")
        s3.put("dags/a b+ü.py", b"hello")
        play(s3, list_and_get, Given(settings))

    (connect,) = proxy.requests
    assert ("store.example:443", AUTHORIZATION) == (
        connect.target,
        connect.headers["proxy-authorization"],
    )
    assert [None] * 2 == [one.headers.get("proxy-authorization") for one in s3.requests]


@pytest.mark.parametrize(
    "answer",
    [
        *(b"HTTP/1.1 %b x\r\n\r\n" % status for status in (b"407", b"502", b"2000")),
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"\r\n\r\n",
        b"HTTP/1.1 200",
        b"",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * (PROXY_HEAD_LIMIT_BYTES // 6 + 1),
    ],
    ids=range(8),
)
def test_a_refused_tunnel_is_reported_without_the_password(
    s3: FakeS3, use_proxy: Callable[[str, str], None], answer: bytes
) -> None:
    use_proxy("HTTPS", f"http://{{}}127.0.0.1:{s3.port}")
    s3.inject(raw(answer))

    found = failure(s3, list_all, Given(config(endpoint_url="https://store.example")))

    assert ("proxy_refused", True) == (found.reason, "HTTPS_PROXY" in found.advice)
    assert "p%40ss" not in found.message and "p@ss" not in found.message


@pytest.mark.parametrize(
    ("proxy", "reason"),
    [
        ("http://{}127.0.0.1:1", "endpoint_unreachable"),
        ("http://{}a..b:3128", "name_unresolved"),
        ("http://{}no-such-host.invalid:3128", "name_unresolved"),
        *((kind, "proxy_refused") for kind in ("https://{}proxy.example", "socks5://{}127.0.0.1",
          "http://{}127.0.0.1:80a", "http://{}", "//{}", "http://{}[::1")),
    ],
)  # fmt: skip
def test_an_unusable_proxy_is_reported_without_its_login(
    s3: FakeS3, use_proxy: Callable[[str, str], None], proxy: str, reason: str
) -> None:
    use_proxy("HTTP", proxy)

    found = failure(s3, list_all)

    assert (reason, True) == (found.reason, "the proxy" in found.message)
    assert "p%40ss" not in found.message


@pytest.mark.parametrize("reason", ["request_timeout", "name_unresolved"])
def test_a_server_is_not_blamed_for_a_silent_name_server(
    s3: FakeS3, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    monkeypatch.setattr("s3_sync.s3.http.CONNECT_SECONDS", 0.1)
    if reason == "name_unresolved":
        monkeypatch.setattr(
            asyncio.BaseEventLoop, "getaddrinfo", lambda *_, **__: asyncio.sleep(60)
        )
    with socket.create_server(("localhost", 0)) as silent:
        url = f"https://localhost:{silent.getsockname()[1]}"

        assert reason == failure(s3, list_all, Given(config(endpoint_url=url))).reason


# --- credentials


@pytest.mark.parametrize(
    "code", ["ExpiredToken", "InvalidSecurity", "InvalidAccessKeyId"]
)
def test_concurrent_requests_fetch_rotated_credentials_once(
    s3: FakeS3, code: str
) -> None:
    chain = Given(config_of(s3), OLD, NEW, GIVEN)
    s3.inject(error(403, code), lambda request: scope_of(request)[0] == "AKIDOLD")

    async def scene(client: S3Client) -> None:
        await asyncio.gather(*(get(client) for _ in range(8)))

    play(s3, scene, chain)

    assert (1, "AKIDNEW") == (chain.forgotten, scope_of(s3.requests[-1])[0])
    assert "new-token" == s3.requests[-1].headers["x-amz-security-token"]


def test_a_wrong_signature_of_one_object_fetches_no_credentials(s3: FakeS3) -> None:
    """As that of a listing does."""
    chain = Given(config_of(s3), OLD, NEW)
    s3.inject(error(403, "SignatureDoesNotMatch"))

    assert "credentials_invalid" == failure(s3, get, chain).reason
    assert 0 == chain.forgotten
    failure(s3, list_all, chain)
    assert chain.forgotten


# --- from cycle to cycle


@pytest.mark.parametrize("answer", ["moved", "redirect", "malformed"])
def test_keeps_using_the_region_that_s3_reports_for_the_bucket(
    s3: FakeS3, answer: str
) -> None:
    s3.region, s3.region_answer = "eu-central-1", answer  # type: ignore[assignment]
    chain = Given(config_of(s3, region="us-east-1"))

    async def scene(client: S3Client) -> None:
        await asyncio.gather(get(client), get(client))
        await client.ensure_credentials(Fence())
        await list_and_get(client)

    play(s3, scene, chain)
    regions = [scope_of(one)[2] for one in s3.requests]
    # The second one may be refused after the first has moved, or not at all.
    assert regions.count("us-east-1") in (1, 2), regions
    assert {"eu-central-1"} == {*regions[-3:]}
