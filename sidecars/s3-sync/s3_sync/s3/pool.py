"""
Keep-alive connections to one origin, for lists and downloads, directly or through a proxy.
"""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from s3_sync.s3.wire import Answer, Check, Connection, HttpOrigin, Sink, StaleConnection, WireError

PROXY_HEAD_LIMIT_BYTES = 16 << 10


class Patience(NamedTuple):
    """
    The time limits, in seconds.

    Args:
        connect_seconds: For a connection, including TLS and a proxy's tunnel.
        resolve_seconds: For name resolution.
        keep_seconds: For reusing an idle connection: NAT gateways and firewalls forget it, some
            after a minute.
        answer_seconds: For a response; a larger body extends it by its size divided by
            ``slowest_bytes_per_second``.
        retry_seconds: The longest pause before the first retry; it doubles with each retry.
    """

    connect_seconds: float = 10.0
    resolve_seconds: float = 5.0
    keep_seconds: float = 50.0
    answer_seconds: float = 60.0
    slowest_bytes_per_second: float = 50_000.0
    retry_seconds: float = 0.8


PATIENCE = Patience()

# Returns the SSL context for the next handshake.
TlsContext = Callable[[], ssl.SSLContext]


class Pool:
    """
    Keep-alive connections to one origin; :meth:`get` may run concurrently.
    """

    def __init__(
        self, origin: HttpOrigin, context: TlsContext | None, patience: Patience = PATIENCE
    ) -> None:
        self.origin = origin
        self._context = context
        self._patience = patience
        self._idle: list[Connection] = []

    async def get(
        self,
        path: str,
        headers: dict[str, str],
        sink: Sink | None,
        seconds: float,
        check: Check | None = None,
    ) -> Answer:
        """
        Send one GET, on a kept connection if one is idle.

        Args:
            path: Encoded path with query.
            headers: Complete and signed, with ``host``.
            seconds: The limit from now on, whatever the number of connections.

        Raises:
            WireError: No complete response arrived.
        """
        head = self._head(path, headers)
        ends_at = time.monotonic() + seconds
        while True:
            connection = self._take_idle()
            is_kept = connection is not None
            if connection is None:
                connection = await self._connect()
            try:
                rest = ends_at - time.monotonic()
                answer = await connection.request(head, sink, rest, check)
            except StaleConnection:
                if is_kept:
                    self.close()  # the other kept connections are probably stale as well
                    continue
                raise WireError(
                    "connection_lost", "the server closed a new connection without a response"
                ) from None
            if answer.status == 407:  # S3 never sends this status
                connection.close()
                raise _wants_login(self.origin)
            if connection.is_usable:
                self._idle.append(connection)
            else:
                connection.close()
            return answer

    def close(self) -> None:
        """
        Close the idle connections.
        """
        while self._idle:
            self._idle.pop().close()

    def _take_idle(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable and connection.idle_seconds < self._patience.keep_seconds:
                return connection
            connection.close()
        return None

    def _head(self, path: str, headers: dict[str, str]) -> bytes:
        target = path
        if self.origin.proxy and self.origin.scheme == "http":
            target = f"http://{self.origin.host_header}{path}"
            headers = {**headers, **_proxy_authorization(self.origin.proxy)}
        return write_head(target, headers)

    async def _connect(self) -> Connection:
        """
        Open a connection; retry once if the trusted certificates changed meanwhile.

        Raises:
            WireError: The connection failed.
        """
        if self._context is None:
            return await self._open(None)
        context = self._context()
        try:
            return await self._open(context)
        except WireError as error:
            newer = self._context()
            if error.reason != "tls_failed" or newer is context:
                raise
            return await self._open(newer)

    async def _open(self, context: ssl.SSLContext | None) -> Connection:
        """
        Open a connection, through the proxy if there is one.
        """
        loop = asyncio.get_running_loop()
        origin, patience = self.origin, self._patience
        where = f"{origin.host}:{origin.port}"
        try:
            async with asyncio.timeout(patience.connect_seconds):
                if origin.proxy:
                    where = f"the proxy {hide_userinfo(origin.proxy)}"
                    sock = await _open_proxy(loop, origin, patience)
                else:
                    sock = await _open_socket(loop, origin.host, origin.port, patience)
                _, connection = await loop.create_connection(
                    lambda: Connection(loop),
                    sock=sock,
                    ssl=context,
                    server_hostname=origin.name if context else None,
                )
        except TimeoutError:
            raise WireError(
                "request_timeout",
                f"{where} did not accept a connection within {patience.connect_seconds:g} s",
            ) from None
        except (socket.gaierror, UnicodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not a valid host name"
            raise WireError(
                "name_unresolved", f"the name of {where} cannot be resolved: {why}"
            ) from None
        except ssl.SSLError as error:
            why = getattr(error, "verify_message", "") or error.reason or str(error)
            advice = ""
            if getattr(error, "verify_code", 0) in (62, 64):  # X509_V_ERR_*_MISMATCH
                advice = "Use a name of the endpoint that its certificate contains."
            said = f"the TLS handshake with {where} failed: {why}"
            raise WireError("tls_failed", said, advice) from None
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)
            raise WireError("endpoint_unreachable", f"cannot connect to {where}: {why}") from None
        return connection


def proxy_address(url: str) -> tuple[str, int] | None:
    """
    Return host and port of a proxy; None for an unsupported kind, such as https.
    """
    try:
        proxy = urlsplit(url)
        host, port = proxy.hostname, proxy.port or 80
    except ValueError:
        return None
    return (host, port) if host and proxy.scheme == "http" else None


def write_head(target: str, headers: Mapping[str, str]) -> bytes:
    """
    Return the bytes of a GET request.
    """
    lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


async def _open_socket(
    loop: asyncio.AbstractEventLoop, host: str, port: int, patience: Patience
) -> socket.socket:
    """
    Connect to the first address of a host that accepts a connection.

    Raises:
        socket.gaierror: The name server does not know the host, or does not respond.
        OSError: No address accepts; this is the error of the last one.
    """
    try:
        found = _find_numeric(host, port)
        if not found:
            async with asyncio.timeout(patience.resolve_seconds):
                found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except TimeoutError:
        raise socket.gaierror(socket.EAI_AGAIN, "the name server does not respond") from None
    for index, (family, kind, protocol, _, address) in enumerate(found, 1):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            async with asyncio.timeout(patience.connect_seconds / len(found)):
                await loop.sock_connect(sock, address)
        except OSError:  # TimeoutError is one
            sock.close()
            if index == len(found):
                raise
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise socket.gaierror(socket.EAI_NONAME, "it has no address")


def _find_numeric(host: str, port: int) -> list[Any]:
    """
    Resolve a host that is an IP address, without a name server; return an empty list for a name.
    """
    try:
        flags = socket.AI_NUMERICHOST
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    except socket.gaierror:
        return []


async def _open_proxy(
    loop: asyncio.AbstractEventLoop, origin: HttpOrigin, patience: Patience
) -> socket.socket:
    """
    Connect to the proxy, and for https request a tunnel.

    Raises:
        WireError: The proxy refuses, or is of an unsupported kind.
        OSError: The proxy cannot be reached.
    """
    assert origin.proxy is not None
    address = proxy_address(origin.proxy)
    if address is None:
        shown = hide_userinfo(origin.proxy)
        raise WireError("proxy_refused", f"the proxy {shown} is not of the form http://HOST:PORT")
    sock = await _open_socket(loop, *address, patience)
    try:
        if origin.scheme == "https":
            await _ask_for_tunnel(loop, sock, origin)
    except BaseException:
        sock.close()
        raise
    return sock


async def _ask_for_tunnel(
    loop: asyncio.AbstractEventLoop, sock: socket.socket, origin: HttpOrigin
) -> None:
    assert origin.proxy is not None
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    target = f"{host}:{origin.port}"
    extra = "".join(f"{k}: {v}\r\n" for k, v in _proxy_authorization(origin.proxy).items())
    await loop.sock_sendall(
        sock, f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{extra}\r\n".encode("latin-1")
    )
    head = b""
    # One byte at a time, because the bytes after the head belong to TLS.
    while not head.endswith(b"\r\n\r\n"):
        byte = await loop.sock_recv(sock, 1)
        if not byte:
            raise WireError("proxy_refused", "the proxy closed the connection on CONNECT")
        if len(head) > PROXY_HEAD_LIMIT_BYTES:
            limit = f"over {PROXY_HEAD_LIMIT_BYTES} bytes of headers"
            raise WireError("proxy_refused", f"the proxy answered CONNECT {target} with {limit}")
        head += byte
    status = head.split(b"\r\n", 1)[0].decode("latin-1")
    if status.split(" ")[1:2] == ["407"]:
        raise _wants_login(origin)
    if status.split(" ")[1:2] != ["200"]:
        raise WireError("proxy_refused", f"the proxy answered CONNECT {target} with {status!r}")


def _wants_login(origin: HttpOrigin) -> WireError:
    """
    Return the error for a 407 response.
    """
    if origin.proxy is None:
        who = f"a proxy on the way to {origin.host}"
    else:
        who = f"the proxy {hide_userinfo(origin.proxy)}"
    is_refused = origin.proxy is not None and "@" in origin.proxy
    what = (
        "rejects the user and password in its URL" if is_refused else "requires user and password"
    )
    return WireError("proxy_refused", f"{who} {what} (407 Proxy Authentication Required)")


def _proxy_authorization(proxy: str) -> dict[str, str]:
    try:
        parts = urlsplit(proxy)
    except ValueError:  # refused with a reason when connecting
        return {}
    if parts.username is None:
        return {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


def hide_userinfo(url: str) -> str:
    """
    Return a URL without user and password.
    """
    start = url.find("//") + 2 if "//" in url else 0
    return f"{url[:start]}{url[start:].rpartition('@')[2]}"
