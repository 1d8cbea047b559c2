"""Keep-alive connections to one origin, directly and through proxies."""

import asyncio
import base64
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from s3_sync.s3.pool import PATIENCE, PROXY_HEAD_LIMIT_BYTES, Patience, Pool, TlsContext
from s3_sync.s3.tls import Trust
from s3_sync.s3.wire import Answer, HttpOrigin, WireError
from tests.s3_sync.given import config
from tests.support.certificates import self_signed
from tests.support.program import own_port

HEADERS = {"host": "bucket.example", "x-amz-date": "now"}
CONNECTED = b"HTTP/1.1 200 Connection established\r\n\r\n"

_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def NO_CA() -> ssl.SSLContext:
    """Trust nobody; it is made at once."""
    return _NOBODY


# What a stand-in does instead of sending.
CLOSE = "close"
RESET = "reset"
TLS = "tls"

Step = Sequence[bytes | str]


def ok(body: bytes = b"hello", status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


class StandIn:
    """
    A server on loopback with a script for each of its connections: one step a request.

    After its last step a connection stays open and silent.
    """

    def __init__(self, *scripts: Sequence[Step], tls: ssl.SSLContext | None = None) -> None:
        self._scripts = list(scripts)
        self._tls = tls
        self.heads: list[bytes] = []
        self.connections = 0
        self.port = 0

    @property
    def origin(self) -> HttpOrigin:
        return HttpOrigin("http", "127.0.0.1", self.port)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        script = self._scripts.pop(0) if self._scripts else ()
        try:
            for step in script:
                self.heads.append(await reader.readuntil(b"\r\n\r\n"))
                for part in step:
                    if isinstance(part, bytes):
                        writer.write(part)
                    elif part == TLS:
                        assert self._tls is not None
                        await writer.start_tls(self._tls)
                    else:
                        writer.transport.close() if part == CLOSE else writer.transport.abort()
                        return
            await reader.read()
        except (OSError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            writer.transport.abort()


@asynccontextmanager
async def listening(server: StandIn, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[None]:
    tasks: list[asyncio.Task[None]] = []

    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.create_task(server.serve(reader, writer)))

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield
    finally:
        listener.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


Scene = Callable[[Pool], Awaitable[Any]]


def run(
    server: StandIn,
    scene: Scene,
    origin: Callable[[int], HttpOrigin] | None = None,
    context: TlsContext | None = None,
    tls: ssl.SSLContext | None = None,
    **patience: float,
) -> Any:
    """Play a scene with a pool that leads to the server."""

    async def play() -> Any:
        async with asyncio.timeout(10), listening(server, tls=tls):
            place = origin(server.port) if origin else server.origin
            pool = Pool(place, context, Patience(**patience))
            try:
                return await scene(pool)
            finally:
                pool.close()

    return asyncio.run(play())


async def get(pool: Pool, path: str = "/key") -> Answer:
    return await pool.get(path, HEADERS, None, 5.0)


async def get_twice(pool: Pool) -> list[bytes]:
    return [(await get(pool)).body for _ in range(2)]


async def failure(pool: Pool) -> WireError:
    with pytest.raises(WireError) as caught:
        await get(pool)
    assert caught.value.advice
    return caught.value


# --- keeping


def test_sends_line_and_headers_and_returns_the_answer() -> None:
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


def test_requests_at_once_have_a_connection_each_and_share_them_later() -> None:
    server = StandIn(*[[[ok()]] * 2] * 3)

    async def scene(pool: Pool) -> None:
        for _ in range(2):
            await asyncio.gather(*(get(pool) for _ in range(3)))

    run(server, scene)

    assert (3, 6) == (server.connections, len(server.heads))


def test_a_kept_connection_that_the_server_drops_is_replaced_unseen() -> None:
    """The request was not seen: it is sent again, once for each connection that is stale."""
    server = StandIn([[ok(b"1")], [CLOSE]], [[ok(b"2")]])

    assert [b"1", b"2"] == run(server, get_twice)
    assert 2 == server.connections


def test_all_kept_connections_may_be_stale() -> None:
    stale: Sequence[Step] = [[ok(b"old")], [CLOSE]]
    server = StandIn(stale, stale, stale, [[ok(b"new")]])

    async def scene(pool: Pool) -> None:
        await asyncio.gather(*(get(pool) for _ in range(3)))
        assert b"new" == (await get(pool)).body

    run(server, scene)

    assert 4 == server.connections


def test_a_new_connection_that_is_dropped_is_a_failure() -> None:
    server = StandIn([[CLOSE]], [[ok()]])

    error = run(server, failure)

    assert "connection_lost" == error.reason
    assert 1 == server.connections


def test_half_an_answer_on_a_kept_connection_is_not_asked_again() -> None:
    server = StandIn([[ok()], [ok()[:-1], CLOSE]], [[ok()]])

    async def scene(pool: Pool) -> WireError:
        await get(pool)
        return await failure(pool)

    assert "connection_lost" == run(server, scene).reason
    assert 1 == server.connections


def test_a_reset_is_named() -> None:
    assert "connection_lost" == run(StandIn([[ok()[:-1], RESET]]), failure).reason


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
def test_a_connection_that_cannot_be_kept_is_not_used_again(first: Step) -> None:
    server = StandIn([first, [ok(b"first again")]], [[ok(b"second")]])

    assert b"second" == run(server, get_twice)[1]
    assert 2 == server.connections


def test_a_connection_that_was_idle_for_long_is_not_used_again() -> None:
    """NAT gateways forget it without a word."""
    assert PATIENCE.keep_seconds < 60
    server = StandIn([[ok()], [ok()]], [[ok()]])

    run(server, get_twice, keep_seconds=0.0)

    assert 2 == server.connections


def test_a_closed_pool_drops_its_connections_and_makes_new_ones() -> None:
    server = StandIn([[ok()], [ok()]], [[ok()]])

    async def scene(pool: Pool) -> None:
        await get(pool)
        pool.close()
        await get(pool)

    run(server, scene)

    assert 2 == server.connections


# --- connecting


def test_a_port_where_nobody_listens() -> None:
    port = own_port()

    error = run(StandIn(), failure, lambda _: HttpOrigin("http", "127.0.0.1", port))

    assert "endpoint_unreachable" == error.reason
    assert f"cannot connect to 127.0.0.1:{port}: Connection refused" == error.message


def test_a_server_that_does_not_accept_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, socket.socket() as first:
        first.connect(full.getsockname())

        origin = HttpOrigin("http", *full.getsockname())
        error = run(StandIn(), failure, lambda _: origin, connect_seconds=0.05)

    assert "request_timeout" == error.reason
    assert "did not accept a connection in 0.05 s" in error.message


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".example"])
def test_an_invalid_name(host: str) -> None:
    error = run(StandIn(), failure, lambda _: HttpOrigin("http", host, 80))

    assert "name_unresolved" == error.reason


def resolving(resolve: Callable[[], Awaitable[list[Any]]], then: Scene) -> Scene:
    """The same scene where names are resolved like this."""

    async def scene(pool: Pool) -> Any:
        loop = asyncio.get_running_loop()
        loop.getaddrinfo = lambda *_, **__: resolve()  # type: ignore[method-assign,assignment]
        return await then(pool)

    return scene


def test_a_name_that_nobody_knows() -> None:
    async def resolve() -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    scene = resolving(resolve, failure)
    error = run(StandIn(), scene, lambda _: HttpOrigin("http", "minio.example", 9000))

    assert "name_unresolved" == error.reason
    assert "minio.example:9000 cannot be resolved: Name or service not known" in error.message


def test_a_silent_name_server_is_not_waited_for() -> None:
    async def resolve() -> list[Any]:
        await asyncio.Event().wait()
        return []

    error = run(StandIn(), resolving(resolve, failure), resolve_seconds=0.05)

    assert "name_unresolved" == error.reason
    assert "the name server does not answer" in error.message


def test_the_second_address_is_tried_when_the_first_refuses() -> None:
    """`localhost` is often ::1 first."""
    server = StandIn([[ok()]])

    async def resolve() -> list[Any]:
        ports = (own_port(), server.port)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in ports]

    assert b"hello" == run(server, resolving(resolve, get)).body


# --- TLS (certificates that are refused: conformance/test_handshakes.py)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    return self_signed(tmp_path_factory.mktemp("tls"), "bucket.example")


def trusting(file: Path) -> TlsContext:
    return Trust(config(ca_bundle=str(file))).context


def https(port: int) -> HttpOrigin:
    return HttpOrigin("https", "127.0.0.1", port)


def test_speaks_tls(certificate: tuple[ssl.SSLContext, Path]) -> None:
    server = StandIn([[ok()], [ok()]])

    found = run(server, get_twice, https, trusting(certificate[1]), certificate[0])

    assert [b"hello"] * 2 == found
    assert 1 == server.connections


def test_certificates_that_change_in_a_handshake_are_tried_at_once(
    certificate: tuple[ssl.SSLContext, Path],
) -> None:
    """A bundle that was replaced a moment too late costs no cycle."""
    bundles = iter([NO_CA, trusting(certificate[1])])
    server = StandIn([[ok()]])

    def context() -> ssl.SSLContext:
        return next(bundles)()

    found = run(server, get, https, context, certificate[0])

    assert b"hello" == found.body
    assert 1 == server.connections, "the handshake that failed is no connection"


def test_certificates_that_stay_the_same_are_tried_once(
    certificate: tuple[ssl.SSLContext, Path],
) -> None:
    asked: list[None] = []

    def context() -> ssl.SSLContext:
        asked.append(None)
        return NO_CA()

    assert "tls_failed" == run(StandIn([[ok()]]), failure, https, context, certificate[0]).reason
    assert 2 == len(asked), "before the handshake and after it"


# --- proxies

LOGIN = "user:p%40ss%3Aword"
AUTHORIZATION = b"Basic " + base64.b64encode(b"user:p@ss:word")


def through(scheme: str, user: str = "", form: str = "http://{}127.0.0.1:{}") -> Any:
    def origin(port: int) -> HttpOrigin:
        default = 443 if scheme == "https" else 80
        proxy = form.format(f"{user}@" if user else "", port)
        return HttpOrigin(scheme, "bucket.example", default, proxy)

    return origin


@pytest.mark.parametrize("form", ["http://{}127.0.0.1:{}", "http://{}127.0.0.1:{}/"])
def test_plain_http_is_asked_of_the_proxy_in_absolute_form(form: str) -> None:
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


def test_the_absolute_form_has_the_port_where_it_is_odd() -> None:
    server = StandIn([[ok()]])

    run(server, get, lambda port: HttpOrigin("http", "minio", 9000, f"http://127.0.0.1:{port}"))

    assert server.heads[0].startswith(b"GET http://minio:9000/key HTTP/1.1\r\n")


def test_https_goes_through_a_tunnel(certificate: tuple[ssl.SSLContext, Path]) -> None:
    server = StandIn([[CONNECTED, TLS], [ok(b"1")], [ok(b"2")]], tls=certificate[0])

    assert [b"1", b"2"] == run(server, get_twice, through("https"), trusting(certificate[1]))
    connect, first, _ = server.heads
    assert b"CONNECT bucket.example:443 HTTP/1.1\r\nHost: bucket.example:443\r\n\r\n" == connect
    assert first.startswith(b"GET /key HTTP/1.1\r\nhost: bucket.example\r\n")


def test_the_password_is_for_the_proxy_alone(certificate: tuple[ssl.SSLContext, Path]) -> None:
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
def test_a_proxy_that_gives_no_tunnel_is_named_without_its_password(refusal: Step) -> None:
    error = run(StandIn([refusal]), failure, through("https", LOGIN), NO_CA)

    assert "proxy_refused" == error.reason
    assert "HTTPS_PROXY" in error.advice
    assert "p%40ss" not in error.message and "p@ss" not in error.message


@pytest.mark.parametrize(
    ("user", "said"),
    [("", "wants user and password"), (LOGIN, "refuses the user and password of its URL")],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_wants_a_login_says_so_and_never_s3(scheme: str, user: str, said: str) -> None:
    refusal = ok(b"<html>Squid</html>", b"407 Proxy Authentication Required")
    server = StandIn([[refusal]])

    error = run(server, failure, through(scheme, user), NO_CA if scheme == "https" else None)

    assert "proxy_refused" == error.reason
    assert f"the proxy http://127.0.0.1:{server.port} {said} (407 " in error.message
    assert "http://USER:PASSWORD@HOST:PORT" in error.advice
    assert "p%40ss" not in error.message and "S3" not in error.message


def test_a_proxy_that_nobody_configured_may_want_a_login_too() -> None:
    error = run(StandIn([[ok(b"", b"407 x")]]), failure)

    assert "proxy_refused" == error.reason
    assert "a proxy on the way to 127.0.0.1 wants user and password" in error.message


def test_a_proxy_that_cannot_be_reached_is_named_without_its_password() -> None:
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
def test_a_proxy_of_a_kind_that_we_do_not_speak_is_refused(scheme: str, proxy: str) -> None:
    error = run(StandIn(), failure, lambda _: HttpOrigin(scheme, "b.example", 443, proxy))

    assert "proxy_refused" == error.reason
    assert "http://HOST:PORT" in error.message
    assert "p%40ss" not in error.message


def test_a_silent_proxy_is_not_waited_for() -> None:
    error = run(StandIn([[]]), failure, through("https"), NO_CA, connect_seconds=0.05)

    assert "request_timeout" == error.reason
    assert "the proxy" in error.message
