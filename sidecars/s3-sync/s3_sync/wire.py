"""
HTTP/1.1 GET over a few keep-alive connections: asyncio below, llhttp (httptools) for the parsing.

One request at a time on each connection, every wait with a deadline, no redirect followed, an
answer whose end cannot be known refused.
"""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

import httptools

from sidecar_runtime.errors import SidecarError

CONNECT_SECONDS = 10.0
IDLE_SECONDS = 20.0
# Beyond this, an answer that is kept in memory is not one of S3's: a page of 1,000 keys of the
# longest kind, percent-encoded, has less than 5 MiB.
BODY_LIMIT_BYTES = 32 << 20
PROXY_HEAD_LIMIT_BYTES = 16 << 10

Sink = Callable[[bytes], object]


class WireError(SidecarError):
    """
    The request got no whole answer; nothing is known about the object.
    """


class StaleConnection(Exception):
    """
    The server had closed a kept connection before it saw our request: try on a new one.
    """


@dataclass(frozen=True, slots=True)
class Origin:
    """
    Where requests go: scheme, host and port, and the proxy on the way (URL, or None).
    """

    scheme: str
    host: str
    port: int
    proxy: str | None = None

    @property
    def host_header(self) -> str:
        """
        The ``Host`` header: the port only where it is not the scheme's own.
        """
        shown = f"[{self.host}]" if ":" in self.host else self.host
        is_default = self.port == (443 if self.scheme == "https" else 80)
        return shown if is_default else f"{shown}:{self.port}"


@dataclass(slots=True)
class Answer:
    """
    Status, headers (lower-case names), and the body unless it went into a sink.
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class Connection(asyncio.Protocol):
    """
    One connection; :meth:`request` is called again only after the last answer has ended.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[Answer] | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._answer = Answer()
        self._chunks: list[bytes] = []
        self._held_bytes = 0
        self._sink: Sink | None = None
        self._is_new = True
        self._has_begun = False
        self._heard_at = 0.0
        self._ends_at = 0.0
        self.is_usable = True

    async def request(self, head: bytes, sink: Sink | None, seconds: float) -> Answer:
        """
        Send a request without body and return the answer.

        Args:
            head: The request line and headers, whole.
            sink: Takes the body of a 200 or 206 as it comes; an exception it raises ends the
                request and is raised here.
            seconds: The limit for the whole exchange; IDLE_SECONDS limits each silence.

        Raises:
            StaleConnection: A kept connection was closed by the server meanwhile.
            WireError: Timeout, reset, truncated or malformed answer.
        """
        assert self._transport is not None
        if self._transport.is_closing():
            raise StaleConnection
        self._waiter = self._loop.create_future()
        self._answer = Answer()
        self._chunks = []
        self._held_bytes = 0
        self._sink = sink
        self._has_begun = False
        self._heard_at = self._loop.time()
        self._ends_at = self._heard_at + seconds
        self._transport.write(head)
        self._watch_handle = self._loop.call_later(min(IDLE_SECONDS, seconds), self._watch)
        is_complete = False
        try:
            answer = await self._waiter
            is_complete = True
            return answer
        finally:
            self._watch_handle.cancel()
            self._waiter = None
            self._sink = None
            self._is_new = False
            if not is_complete:
                self.close()

    def close(self) -> None:
        """
        Drop the connection at once; a half-read body makes it unusable.
        """
        self.is_usable = False
        if self._transport is not None:
            self._transport.abort()

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._waiter is None:
            self.close()
            return
        self._heard_at = self._loop.time()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            self._fail(error.__context__ if isinstance(error.__context__, Exception) else error)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(WireError("server_error", f"the answer is not HTTP/1.1: {error}"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_usable = False
        if self._waiter is None or self._waiter.done():
            return
        if not self._has_begun and not self._is_new:
            self._fail(StaleConnection())
            return
        part = "in the middle of" if self._has_begun else "before"
        why = f" ({exc.strerror or exc})" if isinstance(exc, OSError) else ""
        self._fail(
            WireError("connection_lost", f"the server closed the connection {part} its answer{why}")
        )

    # --- httptools

    def on_message_begin(self) -> None:
        if self._waiter is None or self._waiter.done():
            self.is_usable = False
            raise WireError("server_error", "the server sent more than one answer")
        self._has_begun = True

    def on_header(self, name: bytes, value: bytes) -> None:
        self._answer.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._answer.status = status = self._parser.get_status_code()
        headers = self._answer.headers
        if status < 200:  # interim, such as 103 Early Hints: the answer follows
            headers.clear()
            return
        has_end = "content-length" in headers or "chunked" in headers.get("transfer-encoding", "")
        if not has_end and status not in (204, 304):
            raise WireError("server_error", "the answer does not say how long it is")
        if status not in (200, 206):
            self._sink = None

    def on_body(self, body: bytes) -> None:
        if self._sink is not None:
            self._sink(body)
            return
        self._held_bytes += len(body)
        if self._held_bytes > BODY_LIMIT_BYTES:
            raise WireError("server_error", f"the answer has over {BODY_LIMIT_BYTES} bytes")
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        if self._answer.status < 200:
            return
        if not self._parser.should_keep_alive():
            self.is_usable = False
        if self._waiter is not None and not self._waiter.done():
            self._answer.body = b"".join(self._chunks)
            self._waiter.set_result(self._answer)

    # ---

    def _fail(self, error: Exception) -> None:
        self.is_usable = False
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)

    def _watch(self) -> None:
        """
        Fail the request when its time is up; else look again when it could next be.
        """
        now = self._loop.time()
        limit = min(self._heard_at + IDLE_SECONDS, self._ends_at)
        if now < limit:
            self._watch_handle = self._loop.call_later(limit - now, self._watch)
            return
        silent = now - self._heard_at
        self._fail(
            WireError(
                "request_timeout",
                f"the answer did not end in time (nothing heard for {silent:.0f} s)",
            )
        )


class Pool:
    """
    Keep-alive connections to one origin; :meth:`get` may run concurrently.
    """

    def __init__(self, origin: Origin, context: ssl.SSLContext | None) -> None:
        self.origin = origin
        self._context = context
        self._idle: list[Connection] = []

    async def get(
        self, path: str, headers: dict[str, str], sink: Sink | None, seconds: float
    ) -> Answer:
        """
        Send one GET, on a kept connection where there is one.

        Args:
            path: Encoded path with query.
            headers: Whole and signed, with ``host``.

        Raises:
            WireError: No whole answer came.
        """
        head = self._head(path, headers)
        while True:
            connection = self._take_idle()
            is_kept = connection is not None
            if connection is None:
                connection = await self._connect()
            try:
                answer = await connection.request(head, sink, seconds)
            except StaleConnection:
                if is_kept:
                    continue
                raise WireError(
                    "connection_lost", "the server closed a new connection without an answer"
                ) from None
            if connection.is_usable:
                self._idle.append(connection)
            else:
                connection.close()
            return answer

    def close(self) -> None:
        """
        Drop the idle connections.
        """
        while self._idle:
            self._idle.pop().close()

    def _take_idle(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable:
                return connection
        return None

    def _head(self, path: str, headers: dict[str, str]) -> bytes:
        target = path
        if self.origin.proxy and self.origin.scheme == "http":
            target = f"http://{self.origin.host_header}{path}"
            headers = {**headers, **_proxy_authorization(self.origin.proxy)}
        lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        origin = self.origin
        where = f"{origin.host}:{origin.port}"
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                way: dict[str, Any] = {"host": origin.host, "port": origin.port}
                if origin.proxy:
                    where = f"the proxy {_hide_userinfo(origin.proxy)}"
                    way = {"sock": await _open_proxy(loop, origin)}
                _, connection = await loop.create_connection(
                    lambda: Connection(loop),
                    ssl=self._context,
                    server_hostname=origin.host if self._context else None,
                    **way,
                )
        except TimeoutError:
            raise WireError(
                "request_timeout", f"{where} did not accept a connection in {CONNECT_SECONDS:g} s"
            ) from None
        except (socket.gaierror, UnicodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not a host name"
            raise WireError(
                "name_unresolved", f"the name of {where} cannot be resolved: {why}"
            ) from None
        except ssl.SSLError as error:
            why = getattr(error, "verify_message", "") or error.reason or str(error)
            raise WireError("tls_failed", f"TLS with {where} failed: {why}") from None
        except OSError as error:
            raise WireError(
                "endpoint_unreachable", f"cannot connect to {where}: {error.strerror or error}"
            ) from None
        return connection


async def _open_proxy(loop: asyncio.AbstractEventLoop, origin: Origin) -> socket.socket:
    """
    Connect to the proxy, and for https ask it for a tunnel.

    Raises:
        WireError: The proxy refuses, or is of a kind that we do not speak.
        OSError: It cannot be reached.
    """
    assert origin.proxy is not None
    try:
        proxy = urlsplit(origin.proxy if "//" in origin.proxy else f"http://{origin.proxy}")
        host, port = proxy.hostname or "", proxy.port or 80
    except ValueError:
        host = ""
    if not host or proxy.scheme != "http":
        raise WireError(
            "proxy_refused",
            f"the proxy {_hide_userinfo(origin.proxy)} is not of the form http://HOST:PORT",
        )
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    family, kind, protocol, _, address = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        await loop.sock_connect(sock, address)
        if origin.scheme == "https":
            await _ask_for_tunnel(loop, sock, origin)
    except BaseException:
        sock.close()
        raise
    return sock


async def _ask_for_tunnel(
    loop: asyncio.AbstractEventLoop, sock: socket.socket, origin: Origin
) -> None:
    assert origin.proxy is not None
    target = f"{origin.host}:{origin.port}"
    extra = "".join(f"{k}: {v}\r\n" for k, v in _proxy_authorization(origin.proxy).items())
    await loop.sock_sendall(
        sock, f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{extra}\r\n".encode("latin-1")
    )
    head = b""
    # One byte at a time: what follows the head belongs to TLS.
    while not head.endswith(b"\r\n\r\n"):
        byte = await loop.sock_recv(sock, 1)
        if not byte or len(head) > PROXY_HEAD_LIMIT_BYTES:
            raise WireError("proxy_refused", "the proxy closed the connection on CONNECT")
        head += byte
    status = head.split(b"\r\n", 1)[0].decode("latin-1")
    if status.split(" ")[1:2] != ["200"]:
        raise WireError("proxy_refused", f"the proxy answered CONNECT {target} with {status!r}")


def _proxy_authorization(proxy: str) -> dict[str, str]:
    parts = urlsplit(proxy)
    if parts.username is None:
        return {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


def _hide_userinfo(url: str) -> str:
    head, at, tail = url.rpartition("@")
    return f"{head.partition('//')[0]}//{tail}" if at else url
