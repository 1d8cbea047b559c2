"""Connections through proxies."""

import base64
import ssl
from pathlib import Path
from typing import Any

import pytest

from s3_sync.s3.pool import PROXY_HEAD_LIMIT_BYTES, Pool
from s3_sync.s3.wire import Answer, HttpOrigin, WireError
from tests.s3_sync.s3.stand_in import (
    CLOSE,
    NO_CA,
    TLS,
    StandIn,
    Step,
    failure,
    get,
    get_twice,
    ok,
    run,
    trusting,
)
from tests.support.program import own_port
from tests.support.raising import raised

CONNECTED = b"HTTP/1.1 200 Connection established\r\n\r\n"
LOGIN = "user:p%40ss%3Aword"
AUTHORIZATION = b"Basic " + base64.b64encode(b"user:p@ss:word")


def through(scheme: str, user: str = "", form: str = "http://{}127.0.0.1:{}") -> Any:
    def origin(port: int) -> HttpOrigin:
        default = 443 if scheme == "https" else 80
        proxy = form.format(f"{user}@" if user else "", port)
        return HttpOrigin(scheme, "bucket.example", default, proxy)

    return origin


@pytest.mark.parametrize("form", ["http://{}127.0.0.1:{}", "http://{}127.0.0.1:{}/"])
def test_sends_plain_http_to_the_proxy_in_absolute_form(form: str) -> None:
    server = StandIn([[ok()], [ok()]])

    async def scene(pool: Pool) -> Answer:
        await get(pool)
        return await get(pool, "/a%20b?x=1")

    assert b"hello" == run(server, scene, through("http", form=form)).body
    assert [
        b"GET http://bucket.example/key HTTP/1.1",
        b"GET http://bucket.example/a%20b?x=1 HTTP/1.1",
    ] == [head.split(b"\r\n")[0] for head in server.heads]
    assert all(b"host: bucket.example\r\n" in head for head in server.heads)
    assert not any(b"authorization" in head.lower() for head in server.heads)
    assert 1 == server.connections


def test_the_absolute_form_includes_a_nonstandard_port() -> None:
    server = StandIn([[ok()]])

    run(server, get, lambda port: HttpOrigin("http", "minio", 9000, f"http://127.0.0.1:{port}"))

    assert server.heads[0].startswith(b"GET http://minio:9000/key HTTP/1.1\r\n")


def test_sends_https_through_a_connect_tunnel(certificate: tuple[ssl.SSLContext, Path]) -> None:
    server = StandIn([[CONNECTED, TLS], [ok(b"1")], [ok(b"2")]], tls=certificate[0])

    assert [b"1", b"2"] == run(server, get_twice, through("https"), trusting(certificate[1]))
    connect, first, _ = server.heads
    assert b"CONNECT bucket.example:443 HTTP/1.1\r\nHost: bucket.example:443\r\n\r\n" == connect
    assert first.startswith(b"GET /key HTTP/1.1\r\nhost: bucket.example\r\n")


def test_sends_the_password_only_to_the_proxy(certificate: tuple[ssl.SSLContext, Path]) -> None:
    plain = StandIn([[ok()]])
    run(plain, get, through("http", LOGIN))
    tunnel = StandIn([[CONNECTED, TLS], [ok()]], tls=certificate[0])
    run(tunnel, get, through("https", LOGIN), trusting(certificate[1]))

    line = b"Proxy-Authorization: " + AUTHORIZATION + b"\r\n"
    assert line in plain.heads[0]
    assert line in tunnel.heads[0]
    assert b"uthorization" not in tunnel.heads[1]


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
    assert ("closed the connection" in error.message) == (CLOSE in refusal)


@pytest.mark.parametrize("user", ["", LOGIN])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_407_response_is_attributed_to_the_proxy(scheme: str, user: str) -> None:
    refusal = ok(b"<html>Squid</html>", b"407 Proxy Authentication Required")
    server = StandIn([[refusal]])

    error = run(
        server, failure, through(scheme, user), NO_CA if scheme == "https" else lambda: None
    )

    assert "proxy_refused" == error.reason
    assert f"the proxy http://127.0.0.1:{server.port} answered " in error.message
    assert "407 Proxy Authentication Required" in error.message
    assert "http://USER:PASSWORD@HOST:PORT" in error.advice
    assert "p%40ss" not in error.message and "S3" not in error.message


def test_a_407_response_is_attributed_to_a_proxy_even_if_none_is_configured() -> None:
    error = run(StandIn([[ok(b"", b"407 x")]]), failure)

    assert "proxy_refused" == error.reason
    assert "127.0.0.1" in error.message and "answered with 407" in error.message


def test_an_unreachable_proxy_is_reported_without_its_login() -> None:
    for proxy, reason in (
        (f"http://{LOGIN}@127.0.0.1:{own_port()}", "endpoint_unreachable"),
        (f"http://{LOGIN}@a..b:3128", "name_unresolved"),
    ):
        origin = HttpOrigin("http", "b.example", 80, proxy)
        error = run(StandIn(), failure, lambda _, origin=origin: origin)  # type: ignore[misc]

        assert reason == error.reason
        assert "the proxy" in error.message
        assert "p%40ss" not in error.message and "user" not in error.message


@pytest.mark.parametrize(
    "proxy",
    ["https://127.0.0.1:3128", "socks5://127.0.0.1:1080", "http://127.0.0.1:80a", "http://", "//",
     "http://[::1", f"socks5://{LOGIN}@127.0.0.1:1080"],
)  # fmt: skip
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_refuses_unsupported_and_malformed_proxy_urls(scheme: str, proxy: str) -> None:
    error = raised(WireError, Pool, HttpOrigin(scheme, "b.example", 443, proxy), NO_CA)

    assert "proxy_refused" == error.reason
    assert "http://HOST:PORT" in error.message
    assert "p%40ss" not in error.message


def test_times_out_when_the_proxy_is_silent() -> None:
    error = run(StandIn([[]]), failure, through("https"), NO_CA, connect_seconds=0.05)

    assert "request_timeout" == error.reason
    assert "the proxy" in error.message
