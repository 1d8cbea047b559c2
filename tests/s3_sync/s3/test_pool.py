"""Keep-alive connections to one origin, directly or through a proxy."""

import asyncio
import base64
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from s3_sync.s3.pool import PROXY_HEAD_LIMIT_BYTES, Address, Pool
from s3_sync.s3.wire import WireError
from tests.s3_sync.s3.stand_in import (
    CLOSE,
    NO_CA,
    TLS,
    Scene,
    StandIn,
    Step,
    failure,
    get,
    get_twice,
    ok,
    run,
    trusting,
)
from tests.support.http.certificates import self_signed
from tests.support.program import own_port
from tests.support.raising import raised

CONNECTED = b"HTTP/1.1 200 Connection established\r\n\r\n"
LOGIN = "user:p%40ss%3Aword"
AUTHORIZATION = b"Proxy-Authorization: Basic " + base64.b64encode(b"user:p@ss:word") + b"\r\n"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    return self_signed(tmp_path_factory.mktemp("tls"), "bucket.example")


# --- kept connections


def test_replaces_kept_connections_even_if_all_are_stale() -> None:
    """The server did not see the request, so it is sent again."""
    stale: Sequence[Step] = [[ok(b"old")], [CLOSE]]
    server = StandIn(stale, stale, stale, [[ok(b"new")]])

    async def scene(pool: Pool) -> None:
        await asyncio.gather(*(get(pool) for _ in range(3)))
        assert b"new" == (await get(pool)).body

    run(server, scene)

    assert 4 == server.connections


def test_does_not_repeat_a_request_after_half_a_response() -> None:
    server = StandIn([[ok()], [ok()[:-1], CLOSE]], [[ok()]])

    async def scene(pool: Pool) -> WireError:
        await get(pool)
        return await failure(pool)

    assert "connection_lost" == run(server, scene).reason
    assert 1 == server.connections


# --- connecting


def test_reports_a_refused_connection() -> None:
    port = own_port()

    error = run(StandIn(), failure, lambda _: Address("http", "127.0.0.1", port))

    assert "endpoint_unreachable" == error.reason
    assert f"cannot connect to 127.0.0.1:{port}: Connection refused" == error.message


def resolving(resolve: Callable[[], Awaitable[list[Any]]], then: Scene) -> Scene:
    """Return the scene with a replaced name resolution."""

    async def scene(pool: Pool) -> Any:
        loop = asyncio.get_running_loop()
        loop.getaddrinfo = lambda *_, **__: resolve()  # type: ignore[method-assign,assignment]
        return await then(pool)

    return scene


def by_name(_: int) -> Address:
    return Address("http", "minio.example", 9000)


def test_reports_a_name_that_cannot_be_resolved() -> None:
    async def resolve() -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    unknown = run(StandIn(), resolving(resolve, failure), by_name)
    invalid = run(StandIn(), failure, lambda _: Address("http", "a..b", 80))

    assert ["name_unresolved"] * 2 == [unknown.reason, invalid.reason]
    assert "minio.example:9000 cannot be resolved: [Errno -2] Name or service" in unknown.message


# --- proxies


def through(scheme: str, user: str = "") -> Any:
    def origin(port: int) -> Address:
        login = f"{user}@" if user else ""
        default = 443 if scheme == "https" else 80
        return Address(scheme, "bucket.example", default, f"http://{login}127.0.0.1:{port}/")

    return origin


def test_sends_plain_http_to_the_proxy_in_absolute_form() -> None:
    server = StandIn([[ok()], [ok()]])

    assert [b"hello"] * 2 == run(server, get_twice, through("http", LOGIN))
    assert all(
        head.startswith(b"GET http://bucket.example/key HTTP/1.1\r\n") for head in server.heads
    )
    assert all(b"host: bucket.example\r\n" in head for head in server.heads)
    assert all(AUTHORIZATION in head for head in server.heads)
    assert 1 == server.connections


def test_sends_https_through_a_connect_tunnel(certificate: tuple[ssl.SSLContext, Path]) -> None:
    """The password goes to the proxy only."""
    server = StandIn([[CONNECTED, TLS], [ok(b"1")], [ok(b"2")]], tls=certificate[0])

    found = run(server, get_twice, through("https", LOGIN), trusting(certificate[1]))

    assert [b"1", b"2"] == found
    connect, first, _ = server.heads
    assert connect.startswith(
        b"CONNECT bucket.example:443 HTTP/1.1\r\nHost: bucket.example:443\r\n"
    )
    assert AUTHORIZATION in connect
    assert first.startswith(b"GET /key HTTP/1.1\r\nhost: bucket.example\r\n")
    assert b"uthorization" not in first


@pytest.mark.parametrize(
    "refusal",
    [
        *([b"HTTP/1.1 %b x\r\n\r\n" % status] for status in (b"407", b"403", b"502", b"2000")),
        [b"SSH-2.0-OpenSSH\r\n\r\n"],
        [b"\r\n\r\n"],
        [b"HTTP/1.1 200", CLOSE],
        [CLOSE],
        [b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * (PROXY_HEAD_LIMIT_BYTES // 6 + 1)],
    ],
    ids=range(9),
)
def test_a_refused_tunnel_is_reported_without_the_password(refusal: Step) -> None:
    error = run(StandIn([refusal]), failure, through("https", LOGIN), NO_CA)

    assert "proxy_refused" == error.reason
    assert "HTTPS_PROXY" in error.advice
    assert "p%40ss" not in error.message and "p@ss" not in error.message


@pytest.mark.parametrize(
    ("proxy", "reason"),
    [
        ("http://{}127.0.0.1:1", "endpoint_unreachable"),
        ("http://{}a..b:3128", "name_unresolved"),
        *((kind, "proxy_refused") for kind in ("https://{}proxy.example", "socks5://{}127.0.0.1",
          "http://{}127.0.0.1:80a", "http://{}", "//{}", "http://{}[::1")),
    ],
)  # fmt: skip
def test_an_unusable_proxy_is_reported_without_its_login(proxy: str, reason: str) -> None:
    origin = Address("http", "b.example", 80, proxy.format(f"{LOGIN}@"))

    error = raised(WireError, run, StandIn(), get, lambda _: origin)

    assert reason == error.reason
    assert "the proxy" in error.message
    assert "p%40ss" not in error.message
