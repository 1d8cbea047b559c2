"""
HTTP/1.1 for lists and downloads: keep-alive connections to one address, directly or
through a proxy, on asyncio, parsed by llhttp (httptools).

A connection sends one request at a time, limits every wait, follows no redirect, and
refuses a response whose end cannot be determined. A request on a kept connection that
turns out to be closed is sent again on a new one; all other retries are the client's.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
import socket
import ssl
import time
from collections.abc import Callable, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import SplitResult, quote, unquote, urlsplit

from s3_sync.reasons import S3Error
from sidecar_runtime.settings import without_password

# of the extra `daemon`: where only releases are published
with suppress(ModuleNotFoundError):
    import httptools

PROXY_HEAD_LIMIT_BYTES = 16 << 10
# For a connection, including its name, TLS and a proxy's tunnel.
CONNECT_SECONDS = 10.0
# For the name alone, where that was not enough.
NAME_SECONDS = 1.0
# For reusing an idle connection: NAT gateways and firewalls forget it, some after a
# minute.
KEEP_SECONDS = 50.0
# A host's next address is tried if one has not accepted a connection by then (RFC
# 8305).
NEXT_ADDRESS_SECONDS = 0.25
IDLE_SECONDS = 30.0
# S3 never sends a larger response that is kept in memory: a page of 1,000 keys of
# maximum length, percent-encoded, has less than 5 MiB.
BODY_LIMIT_BYTES = 32 << 20
# Everything except the body: interim responses, headers, chunk sizes and extensions,
# trailers. S3 sends 10 KiB at most.
FRAMING_LIMIT_BYTES = 64 << 10

# For what arrives at once, on each connection; asyncio's own would be a new 256 KiB
# each time.
BUFFER_BYTES = 64 << 10

Sink = Callable[[bytes], object]
# Of a request or a response, by name.
Headers: TypeAlias = Mapping[str, str]


class WireError(S3Error):
    """
    No complete response arrived; the state of the object is unknown.
    """


@dataclass(slots=True)
class Answer:
    """
    A response: status, headers (lower-case names), and the body unless a sink received
    it.
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(slots=True)
class _Exchange:
    """
    A request on a connection, until its response has ended.

    Args:
        waiter: Ends with the response, or with the error.
        limit: The time for what arrives next; each arrival gives it more.
        ends_at: When the response is too late in any case (event loop's time).
        is_part: Whether a part of an object was asked for.
        held: The body, unless the sink gets it.
        framing_bytes: How much arrived since the last byte of the body.
    """

    waiter: asyncio.Future[None]
    limit: asyncio.Timeout
    ends_at: float
    sink: Sink | None
    is_part: bool
    answer: Answer = field(default_factory=Answer)
    held: bytearray = field(default_factory=bytearray)
    framing_bytes: int = 0

    def end(self, error: BaseException | None = None) -> None:
        if self.waiter.done():
            return
        if error is None:
            self.waiter.set_result(None)
        else:
            self.held.clear()  # the error may be kept
            self.waiter.set_exception(error)


class Connection(asyncio.BufferedProtocol):
    """
    One connection; call :meth:`request` again only after the last response has ended.

    Attributes:
        is_usable: Whether another request may be sent.
        has_begun: Whether something of the last response has arrived.
    """

    _transport: asyncio.Transport

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._exchange: _Exchange | None = None
        self._buffer = memoryview(bytearray(BUFFER_BYTES))
        self._heard_at = 0.0
        self.is_usable = self.has_begun = False

    @property
    def idle_seconds(self) -> float:
        return self._loop.time() - self._heard_at

    async def request(
        self, head: bytes, sink: Sink | None, seconds: float, *, is_part: bool = False
    ) -> Answer:
        """
        Send a request without body and return the response.

        Args:
            head: The complete request line and headers.
            sink: Receives the body of a 200 or 206 as it arrives; an exception it
                raises ends the request and is raised here.
            seconds: The limit for the whole exchange; IDLE_SECONDS limits each silence.

        Raises:
            WireError: Timeout, reset, truncated or malformed response.
        """
        self.is_usable = self.has_begun = False
        self._heard_at = now = self._loop.time()
        exchange = _Exchange(
            waiter=self._loop.create_future(),
            limit=asyncio.timeout(min(IDLE_SECONDS, seconds)),
            ends_at=now + seconds,
            sink=sink,
            is_part=is_part,
        )
        self._exchange = exchange
        try:
            async with exchange.limit:
                self._transport.write(head)
                await exchange.waiter
        except TimeoutError:
            if not exchange.limit.expired():  # the sink's: a volume can time out, too
                raise
            raise WireError(
                "request_timeout",
                "no complete response in time, and no data for "
                f"{self.idle_seconds:.0f} s",
            ) from None
        finally:
            self._exchange = None
            if not self.is_usable:
                self.close()
        exchange.answer.body = bytes(exchange.held)
        return exchange.answer

    def close(self) -> None:
        """
        Close the connection at once; after a half-read body it is unusable.
        """
        self.is_usable = False
        self._transport.abort()

    # --- asyncio.BufferedProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._heard_at = self._loop.time()
        self.is_usable = True

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        exchange = self._exchange
        if exchange is None or exchange.waiter.done():  # nobody asked for it
            self.close()
            return
        self._heard_at = self._loop.time()
        exchange.limit.reschedule(min(self._heard_at + IDLE_SECONDS, exchange.ends_at))
        exchange.framing_bytes += nbytes
        try:
            self._parser.feed_data(self._buffer[:nbytes])
            if exchange.framing_bytes > FRAMING_LIMIT_BYTES:
                raise WireError(
                    "server_error",
                    f"the response has over {FRAMING_LIMIT_BYTES} bytes without a body",
                )
        except Exception as found:  # noqa: BLE001 - whatever the sink raises ends the request
            error: BaseException = found
            if isinstance(found, httptools.HttpParserCallbackError):
                error = found.__context__ or found
            elif isinstance(
                found, (httptools.HttpParserError, httptools.HttpParserUpgrade)
            ):
                error = WireError(
                    "server_error", f"the response is not HTTP/1.1: {found}"
                )
            self.is_usable = False
            exchange.end(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_usable = False
        if self._exchange:
            part = "during" if self.has_begun else "before"
            self._exchange.end(
                WireError(
                    "connection_lost",
                    f"the server closed the connection {part} its response",
                )
            )

    # --- httptools, while data is received

    @property
    def _current(self) -> _Exchange:
        assert self._exchange
        return self._exchange

    def on_message_begin(self) -> None:
        if self._current.waiter.done():
            raise WireError("server_error", "the server sent more than one response")
        self.has_begun = True

    def on_header(self, name: bytes, value: bytes) -> None:
        answer = self._current.answer
        if answer.status < 200:  # otherwise it is a trailer, which is not used
            key = name.decode("latin-1").lower()
            answer.headers[key] = value.decode("latin-1").strip()

    def on_headers_complete(self) -> None:
        exchange = self._current
        exchange.answer.status = status = self._parser.get_status_code()
        headers = exchange.answer.headers
        if status < 200:  # interim, such as 103 Early Hints: the final response follows
            headers.clear()
            return
        is_success = status in (200, 206)
        has_end = "content-length" in headers or "chunked" in headers.get(
            "transfer-encoding", ""
        )
        if not has_end and is_success:
            raise WireError("server_error", "the response does not declare its length")
        # Some stores, such as rclone's, serve a part with 200.
        is_whole = status == 200 and "content-range" not in headers
        if exchange.is_part and is_whole:
            raise WireError(
                "answer_foreign",
                "the server sent the whole object, not the part that was asked for",
                "Use a store that serves ranges; check the proxies before it.",
            )
        if not has_end and status not in (204, 304):  # its text may never end
            exchange.end()
        if not is_success:
            exchange.sink = None

    def on_body(self, body: bytes) -> None:
        exchange = self._current
        exchange.framing_bytes = 0
        if exchange.sink:
            exchange.sink(body)
            return
        exchange.held += body
        if len(exchange.held) > BODY_LIMIT_BYTES:
            raise WireError(
                "server_error", f"the response has over {BODY_LIMIT_BYTES} bytes"
            )

    def on_message_complete(self) -> None:
        exchange = self._current
        if exchange.answer.status >= 200 and not exchange.waiter.done():
            self.is_usable = self._parser.should_keep_alive()
            exchange.end()


class Address(NamedTuple):
    """
    Where the requests for a bucket go.

    Args:
        proxy: The URL of the proxy, or None.
        base_path: The path before the keys.
        region: The region for signing.
    """

    scheme: str
    host: str
    port: int
    proxy: str | None = None
    base_path: str = ""
    region: str = ""

    @property
    def name(self) -> str:
        """
        The host without the dot that makes a name absolute: certificates and servers
        know none.
        """
        return self.host.rstrip(".")

    @property
    def host_header(self) -> str:
        """
        The ``Host`` header; without the port if it is the scheme's default.
        """
        shown = f"[{self.name}]" if ":" in self.name else self.name
        is_default = self.port == (443 if self.scheme == "https" else 80)
        return shown if is_default else f"{shown}:{self.port}"

    def path_of(self, key: str) -> str:
        """
        Return the path of a key; S3 expects it percent-encoded once and never
        normalized.
        """
        return f"{self.base_path}/{quote(key, safe='/-_.~')}"


class Pool:
    """
    Keep-alive connections to one address; :meth:`get` may run concurrently, as often as
    its callers do (``download.CONNECTIONS``).

    Args:
        read_trust: Reads the trusted certificates; called again after a failed
            handshake, because they may have been rotated.

    Attributes:
        refused: Headers that the server refuses, so they are left out.

    Raises:
        WireError: The proxy is of an unsupported kind.
    """

    def __init__(
        self, address: Address, read_trust: Callable[[], ssl.SSLContext]
    ) -> None:
        self.address = address
        self.refused: Set[str] = frozenset()
        self._place = address.host, address.port
        self._read_trust = read_trust
        self._context: ssl.SSLContext | None = None
        self._idle: list[Connection] = []
        self._coming: asyncio.Task[None] | None = None
        self._where = f"{address.host}:{address.port}"
        if address.proxy:
            self._where = f"the proxy {without_password(address.proxy)}"
            proxy = split_url(address.proxy, "http")
            if proxy is None:
                raise WireError(
                    "proxy_refused",
                    f"{self._where} is not http://HOST:PORT, the only supported kind",
                )
            self._place = proxy.hostname or "", proxy.port or 80

    async def get(
        self,
        path: str,
        headers: Headers,
        sink: Sink | None,
        seconds: float,
        *,
        is_part: bool,
    ) -> Answer:
        """
        Send one GET, on a kept connection if one is idle.

        Args:
            path: Encoded path with query.
            headers: Complete and signed, with ``host``.
            seconds: The limit from now on, whatever the number of connections.
            is_part: Whether the headers ask for a part of the object.

        Raises:
            WireError: No complete response arrived.
        """
        address = self.address
        if address.proxy and address.scheme == "http":
            path = f"http://{address.host_header}{path}"
            headers = {**headers, **_login_of(address.proxy)}
        head = _head("GET", path, headers)
        ends_at = time.monotonic() + seconds
        if self._coming:
            await asyncio.wait([self._coming])
        while True:
            kept = self._idle.pop() if self._idle else None
            if kept and not (kept.is_usable and kept.idle_seconds < KEEP_SECONDS):
                kept.close()
                continue
            connection = kept or await self._open()
            # A prepared one is as good as new.
            is_reused = connection.has_begun
            try:
                answer = await connection.request(
                    head, sink, ends_at - time.monotonic(), is_part=is_part
                )
            except WireError:
                is_late = time.monotonic() >= ends_at
                if not is_reused or connection.has_begun or is_late:
                    raise
                # The server closed it, or a firewall forgot it, and probably the others
                # as well.
                self.close()
                continue
            if connection.is_usable:
                self._idle.append(connection)
            return answer

    def prepare(self) -> None:
        """
        Begin to open a connection for the first request; if that fails, the request
        tries it again, and tells.
        """
        self._coming = asyncio.create_task(self._prepare())

    async def _prepare(self) -> None:
        with suppress(S3Error):
            self._idle.append(await self._open())
        self._coming = None

    def close(self) -> None:
        """
        Close the idle connections.
        """
        if self._coming:
            self._coming.cancel()
        while self._idle:
            self._idle.pop().close()

    async def _open(self) -> Connection:
        """
        Open a connection, through the proxy if there is one.

        Raises:
            WireError: The connection failed.
            SourceError: The trusted certificates cannot be read.
        """
        address = self.address
        where = self._where
        tls: dict[str, Any] = {}
        if address.scheme == "https":
            self._context = self._context or self._read_trust()
            tls = {"ssl": self._context, "server_hostname": address.name}
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                if tls and address.proxy:
                    return await self._open_tunnel(address.proxy)
                connection: Connection = (await self._dial(Connection, **tls))[1]
                return connection
        except TimeoutError:
            reason = "request_timeout"
            said = f"{where} did not accept a connection within {CONNECT_SECONDS:g} s"
            # Or it was never asked: no name server answers, as behind a network policy.
            try:
                async with asyncio.timeout(NAME_SECONDS):
                    await asyncio.get_running_loop().getaddrinfo(*self._place)
            except OSError:
                reason = "name_unresolved"
                said = f"no name server says in time what the address of {where} is"
            raise WireError(reason, said) from None
        except (socket.gaierror, UnicodeError) as error:
            raise WireError(
                "name_unresolved", f"the name of {where} cannot be resolved: {error}"
            ) from None
        except ssl.SSLError as error:
            self._context = None
            why = getattr(error, "verify_message", "") or error.reason or str(error)
            # X509_V_ERR_*_MISMATCH
            is_other_name = getattr(error, "verify_code", 0) in (62, 64)
            raise WireError(
                "tls_failed",
                f"the TLS handshake with {where} failed: {why}",
                "Use a name of the endpoint that its certificate contains."
                if is_other_name
                else "",
            ) from None
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)
            raise WireError(
                "endpoint_unreachable", f"cannot connect to {where}: {why}"
            ) from None

    async def _open_tunnel(self, proxy: str) -> Connection:
        """
        Request a tunnel from the proxy, and begin TLS in it.
        """
        address = self.address
        loop = asyncio.get_running_loop()
        host = f"[{address.host}]" if ":" in address.host else address.host
        target = f"{host}:{address.port}"
        reader = asyncio.StreamReader(PROXY_HEAD_LIMIT_BYTES)
        tunnel, _ = await self._dial(lambda: asyncio.StreamReaderProtocol(reader))
        try:
            tunnel.write(_head("CONNECT", target, {"Host": target, **_login_of(proxy)}))
            try:
                status = await reader.readuntil(b"\r\n\r\n")
            except (asyncio.LimitOverrunError, EOFError, ConnectionError):
                status = b"no complete response"
            if status.split(b" ")[1:2] != [b"200"]:
                said = status.partition(b"\r\n")[0].decode("latin-1")
                raise WireError(
                    "proxy_refused", f"{self._where} answered CONNECT with {said}"
                )
            assert self._context is not None
            connection = Connection()
            transport = await loop.start_tls(
                tunnel, connection, self._context, server_hostname=address.name
            )
            assert transport is not None
            connection.connection_made(transport)
        except BaseException:
            tunnel.abort()
            raise
        return connection

    async def _dial(self, protocol: Callable[[], Any], **tls: Any) -> tuple[Any, Any]:
        """
        Connect to the first address of the place that accepts a connection; return
        transport and protocol.

        Raises:
            OSError, UnicodeError: Its name has no address, or none of them accepts.
        """
        loop = asyncio.get_running_loop()
        return await loop.create_connection(
            protocol, *self._place, happy_eyeballs_delay=NEXT_ADDRESS_SECONDS, **tls
        )


def split_url(text: str, *schemes: str) -> SplitResult | None:
    """
    Return the parts of an ASCII URL of a server; None for anything else.
    """
    with suppress(ValueError):
        url = urlsplit(text)
        if re.fullmatch(r"[!-~]+", text) and url.scheme in schemes and url.hostname:
            return url if url.port != 0 else None
    return None


def _head(method: str, target: str, headers: Headers) -> bytes:
    """
    Return the bytes of a request.
    """
    lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
    return f"{method} {target} HTTP/1.1\r\n{''.join(lines)}\r\n".encode("latin-1")


def _login_of(proxy: str) -> Headers:
    parts = urlsplit(proxy)
    if parts.username is None:
        return {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
