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
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

from s3_sync.s3.wire import Answer, Check, Connection, HttpOrigin, Sink, WireError
from sidecar_runtime.settings import without_password

PROXY_HEAD_LIMIT_BYTES = 16 << 10
# A host's next address is tried if one has not accepted a connection by then (RFC 8305).
NEXT_ADDRESS_SECONDS = 0.25


class Patience(NamedTuple):
    """
    The time limits, in seconds.

    Args:
        connect_seconds: For a connection, including its name, TLS and a proxy's tunnel.
        keep_seconds: For reusing an idle connection: NAT gateways and firewalls forget it, some
            after a minute.
        answer_seconds: For a response; a larger body extends it by its size divided by
            ``slowest_bytes_per_second``.
        retry_seconds: The longest pause before the first retry; it doubles with each retry.
    """

    connect_seconds: float = 10.0
    keep_seconds: float = 50.0
    answer_seconds: float = 60.0
    slowest_bytes_per_second: float = 50_000.0
    retry_seconds: float = 0.8


PATIENCE = Patience()

# Reads the trusted certificates; returns None for an origin without TLS.
ReadTrust = Callable[[], ssl.SSLContext | None]
P = TypeVar("P", bound=asyncio.Protocol)


class Pool:
    """
    Keep-alive connections to one origin; :meth:`get` may run concurrently.

    The trusted certificates are read again after a failed handshake: they may have been rotated.

    Raises:
        WireError: The proxy is of an unsupported kind.
    """

    def __init__(
        self, origin: HttpOrigin, read_trust: ReadTrust, patience: Patience = PATIENCE
    ) -> None:
        self.origin = origin
        self._place = _proxy_address(origin.proxy) if origin.proxy else (origin.host, origin.port)
        self._read_trust = read_trust
        self._context: ssl.SSLContext | None = None
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
        if self.origin.proxy and self.origin.scheme == "http":
            path = f"http://{self.origin.host_header}{path}"
            headers = {**headers, **_login_of(self.origin.proxy)}
        head = write_head(path, headers)
        ends_at = time.monotonic() + seconds
        while True:
            kept = self._take_idle()
            connection = kept or await self._open()
            try:
                rest = ends_at - time.monotonic()
                answer = await connection.request(head, sink, rest, check)
            except WireError:
                if kept is None or kept.has_begun or time.monotonic() >= ends_at:
                    raise
                # The server closed it, or a firewall forgot it, and probably the others as well.
                self.close()
                continue
            if answer.status == 407:  # S3 never sends this status
                connection.close()
                said = f"{self._where} answered with 407 Proxy Authentication Required"
                raise WireError("proxy_refused", said)
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

    @property
    def _where(self) -> str:
        """
        Where connections are opened, as errors call it.
        """
        origin = self.origin
        if origin.proxy:
            return f"the proxy {without_password(origin.proxy)}"
        return f"{origin.host}:{origin.port}"

    async def _open(self) -> Connection:
        """
        Open a connection, through the proxy if there is one.

        Raises:
            WireError: The connection failed.
            SourceError: The trusted certificates cannot be read.
        """
        self._context = self._context or self._read_trust()
        origin, where, seconds = self.origin, self._where, self._patience.connect_seconds
        try:
            async with asyncio.timeout(seconds):
                if origin.proxy and origin.scheme == "https":
                    return await self._open_tunnel(origin.proxy)
                name = origin.name if self._context else None
                _, connection = await self._dial(
                    Connection, ssl=self._context, server_hostname=name
                )
                return connection
        except TimeoutError:
            said = f"{where} did not accept a connection within {seconds:g} s"
            raise WireError("request_timeout", said) from None
        except (socket.gaierror, UnicodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not a valid host name"
            said = f"the name of {where} cannot be resolved: {why}"
            raise WireError("name_unresolved", said) from None
        except ssl.SSLError as error:
            self._context = None
            why = getattr(error, "verify_message", "") or error.reason or str(error)
            advice = ""
            if getattr(error, "verify_code", 0) in (62, 64):  # X509_V_ERR_*_MISMATCH
                advice = "Use a name of the endpoint that its certificate contains."
            said = f"the TLS handshake with {where} failed: {why}"
            raise WireError("tls_failed", said, advice) from None
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)
            raise WireError("endpoint_unreachable", f"cannot connect to {where}: {why}") from None

    async def _open_tunnel(self, proxy: str) -> Connection:
        """
        Request a tunnel from the proxy, and begin TLS in it.
        """
        origin, loop = self.origin, asyncio.get_running_loop()
        host = f"[{origin.host}]" if ":" in origin.host else origin.host
        target = f"{host}:{origin.port}"
        reader = asyncio.StreamReader(PROXY_HEAD_LIMIT_BYTES)
        tunnel, _ = await self._dial(lambda: asyncio.StreamReaderProtocol(reader))
        try:
            tunnel.write(write_head(target, {"Host": target, **_login_of(proxy)}, "CONNECT"))
            try:
                status = (
                    (await reader.readuntil(b"\r\n\r\n")).partition(b"\r\n")[0].decode("latin-1")
                )
            except asyncio.LimitOverrunError:
                status = "a head without an end"
            except (EOFError, ConnectionError):
                status = "nothing: it closed the connection"
            if status.split(" ")[1:2] != ["200"]:
                raise WireError("proxy_refused", f"{self._where} answered CONNECT with {status}")
            assert self._context is not None
            connection = Connection()
            transport = await loop.start_tls(
                tunnel, connection, self._context, server_hostname=origin.name
            )
            assert transport is not None
            connection.connection_made(transport)
        except BaseException:
            tunnel.abort()
            raise
        return connection

    async def _dial(self, protocol: Callable[[], P], **tls: Any) -> tuple[asyncio.Transport, P]:
        """
        Connect to the first address of the place that accepts a connection.

        Raises:
            OSError, UnicodeError: Its name has no address, or none of them accepts.
        """
        loop = asyncio.get_running_loop()
        return await loop.create_connection(
            protocol, *self._place, happy_eyeballs_delay=NEXT_ADDRESS_SECONDS, **tls
        )


def _proxy_address(url: str) -> tuple[str, int]:
    """
    Return host and port of a proxy.

    Raises:
        WireError: It is of an unsupported kind, such as https.
    """
    try:
        proxy = urlsplit(url)
        if proxy.hostname and proxy.scheme == "http":
            return proxy.hostname, proxy.port or 80
    except ValueError:
        pass
    said = f"the proxy {without_password(url)} is not http://HOST:PORT, the only supported kind"
    raise WireError("proxy_refused", said)


def write_head(target: str, headers: Mapping[str, str], method: str = "GET") -> bytes:
    """
    Return the bytes of a request.
    """
    lines = [f"{method} {target} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _login_of(proxy: str) -> dict[str, str]:
    parts = urlsplit(proxy)
    if parts.username is None:
        return {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
