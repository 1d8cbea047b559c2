"""Keep-alive connections to one origin."""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from s3_sync.s3.pool import PATIENCE, Pool
from s3_sync.s3.wire import Answer, HttpOrigin, WireError
from tests.s3_sync.s3.stand_in import (
    CLOSE,
    HEADERS,
    NO_CA,
    Scene,
    StandIn,
    Step,
    failure,
    get,
    get_twice,
    https,
    ok,
    run,
    trusting,
)
from tests.support.program import own_port

# --- kept connections


def test_sends_the_request_head_and_returns_the_response() -> None:
    server = StandIn([[ok()]])

    answer: Answer = run(server, lambda pool: pool.get("/a%20b?x=1", HEADERS, None, 5.0))

    assert (200, b"hello") == (answer.status, answer.body)
    assert [
        b"GET /a%20b?x=1 HTTP/1.1\r\nhost: bucket.example\r\nx-amz-date: now\r\n\r\n"
    ] == server.heads


def test_one_connection_serves_many_requests() -> None:
    server = StandIn([[ok()], [ok(b"gone", b"404 x")], [ok()]])

    async def scene(pool: Pool) -> None:
        for _ in range(3):
            await get(pool)

    run(server, scene)

    assert (1, 3) == (server.connections, len(server.heads))


def test_concurrent_requests_open_a_connection_each_and_reuse_them() -> None:
    server = StandIn(*[[[ok()]] * 2] * 3)

    async def scene(pool: Pool) -> None:
        for _ in range(2):
            await asyncio.gather(*(get(pool) for _ in range(3)))

    run(server, scene)

    assert (3, 6) == (server.connections, len(server.heads))


def test_repeats_a_request_when_the_server_drops_a_kept_connection() -> None:
    """The server did not see the request, so it is sent again, once per stale connection."""
    server = StandIn([[ok(b"1")], [CLOSE]], [[ok(b"2")]])

    assert [b"1", b"2"] == run(server, get_twice)
    assert 2 == server.connections


def test_replaces_kept_connections_even_if_all_are_stale() -> None:
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


@pytest.mark.parametrize(
    "first",
    [
        [b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"],
        [ok() + ok(b"nobody asked")],
        [b"HTTP/1.1 404 x\r\n\r\nNoSuchKey", CLOSE],
        [ok(), CLOSE],
    ],
    ids=["close", "two answers", "ends with the connection", "closed after it"],
)
def test_does_not_reuse_a_connection_that_cannot_be_kept(first: Step) -> None:
    server = StandIn([first, [ok(b"first again")]], [[ok(b"second")]])

    assert b"second" == run(server, get_twice)[1]
    assert 2 == server.connections


def test_does_not_reuse_a_connection_after_a_long_idle_time() -> None:
    """NAT gateways drop idle connections silently."""
    assert PATIENCE.keep_seconds < 60
    server = StandIn([[ok()], [ok()]], [[ok()]])

    run(server, get_twice, keep_seconds=0.0)

    assert 2 == server.connections


def test_a_closed_pool_drops_its_connections_and_opens_new_ones() -> None:
    server = StandIn([[ok()], [ok()]], [[ok()]])

    async def scene(pool: Pool) -> None:
        await get(pool)
        pool.close()
        await get(pool)

    run(server, scene)

    assert 2 == server.connections


# --- connecting


def test_reports_a_refused_connection() -> None:
    port = own_port()

    error = run(StandIn(), failure, lambda _: HttpOrigin("http", "127.0.0.1", port))

    assert "endpoint_unreachable" == error.reason
    assert f"cannot connect to 127.0.0.1:{port}: Connection refused" == error.message


def test_times_out_when_the_server_does_not_accept_a_connection() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, socket.socket() as first:
        first.connect(full.getsockname())

        origin = HttpOrigin("http", *full.getsockname())
        error = run(StandIn(), failure, lambda _: origin, connect_seconds=0.05)

    assert "request_timeout" == error.reason
    assert "did not accept a connection within 0.05 s" in error.message


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".example"])
def test_reports_an_invalid_host_name_as_unresolved(host: str) -> None:
    error = run(StandIn(), failure, lambda _: HttpOrigin("http", host, 80))

    assert "name_unresolved" == error.reason


def resolving(resolve: Callable[[], Awaitable[list[Any]]], then: Scene) -> Scene:
    """Return the scene with a replaced name resolution."""

    async def scene(pool: Pool) -> Any:
        loop = asyncio.get_running_loop()
        loop.getaddrinfo = lambda *_, **__: resolve()  # type: ignore[method-assign,assignment]
        return await then(pool)

    return scene


def by_name(_: int) -> HttpOrigin:
    return HttpOrigin("http", "minio.example", 9000)


def test_reports_an_unknown_host_name_as_unresolved() -> None:
    async def resolve() -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    error = run(StandIn(), resolving(resolve, failure), by_name)

    assert "name_unresolved" == error.reason
    assert "minio.example:9000 cannot be resolved: Name or service not known" in error.message


def test_tries_the_second_address_when_the_first_refuses() -> None:
    """`localhost` often resolves to ::1 first."""
    server = StandIn([[ok()]])

    async def resolve() -> list[Any]:
        ports = (own_port(), server.port)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in ports]

    assert b"hello" == run(server, resolving(resolve, get), by_name).body


def test_connects_to_an_ip_address_without_name_resolution() -> None:
    async def resolve() -> list[Any]:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    assert b"hello" == run(StandIn([[ok()]]), resolving(resolve, get)).body


# --- TLS (for refused certificates, see conformance/test_handshakes.py)


def test_reuses_one_connection_for_https_requests(certificate: tuple[ssl.SSLContext, Path]) -> None:
    server = StandIn([[ok()], [ok()]])

    found = run(server, get_twice, https, trusting(certificate[1]), certificate[0])

    assert [b"hello"] * 2 == found
    assert 1 == server.connections


def test_repeats_the_handshake_with_the_bundle_as_it_is_now(
    certificate: tuple[ssl.SSLContext, Path],
) -> None:
    """A rotated bundle does not fail a cycle."""
    bundles = iter([NO_CA, trusting(certificate[1])])
    server = StandIn([[ok()]])

    def trust() -> ssl.SSLContext | None:
        return next(bundles)()

    found = run(server, get, https, trust, certificate[0])

    assert b"hello" == found.body
    assert 1 == server.connections, "the handshake that failed is no connection"
