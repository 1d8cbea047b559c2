"""
Keep-alive connections to one address, for lists and downloads, directly or through a proxy.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import SplitResult, quote, unquote, urlsplit

from s3_sync.s3.wire import Answer, Check, Connection, Sink, WireError
from sidecar_runtime.settings import without_password

PROXY_HEAD_LIMIT_BYTES = 16 << 10
# For a connection, including its name, TLS and a proxy's tunnel.
CONNECT_SECONDS = 10.0
# For reusing an idle connection: NAT gateways and firewalls forget it, some after a minute.
KEEP_SECONDS = 50.0
# A host's next address is tried if one has not accepted a connection by then (RFC 8305).
NEXT_ADDRESS_SECONDS = 0.25


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
        The host without the dot that makes a name absolute: certificates and servers know none.
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
        Return the path of a key; S3 expects it percent-encoded once and never normalized.
        """
        return f"{self.base_path}/{quote(key, safe='/-_.~')}"


class Pool:
    """
    Keep-alive connections to one address; :meth:`get` may run concurrently.

    Args:
        read_trust: Reads the trusted certificates; called again after a failed handshake, because
            they may have been rotated.

    Raises:
        WireError: The proxy is of an unsupported kind.
    """

    def __init__(self, address: Address, read_trust: Callable[[], ssl.SSLContext]) -> None:
        self.address = address
        self._place = address.host, address.port
        self._read_trust = read_trust
        self._context: ssl.SSLContext | None = None
        self._idle: list[Connection] = []
        self._where = f"{address.host}:{address.port}"
        if address.proxy:
            self._where = f"the proxy {without_password(address.proxy)}"
            proxy = split_url(address.proxy, "http")
            if proxy is None:
                said = f"{self._where} is not http://HOST:PORT, the only supported kind"
                raise WireError("proxy_refused", said)
            self._place = proxy.hostname or "", proxy.port or 80

    async def get(
        self,
        path: str,
        headers: Mapping[str, str],
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
        address = self.address
        if address.proxy and address.scheme == "http":
            path = f"http://{address.host_header}{path}"
            headers = {**headers, **_login_of(address.proxy)}
        head = _head("GET", path, headers)
        ends_at = time.monotonic() + seconds
        while True:
            kept = self._idle.pop() if self._idle else None
            if kept and not (kept.is_usable and kept.idle_seconds < KEEP_SECONDS):
                kept.close()
                continue
            connection = kept or await self._open()
            try:
                answer = await connection.request(head, sink, ends_at - time.monotonic(), check)
            except WireError:
                if kept is None or kept.has_begun or time.monotonic() >= ends_at:
                    raise
                # The server closed it, or a firewall forgot it, and probably the others as well.
                self.close()
                continue
            if connection.is_usable:
                self._idle.append(connection)
            return answer

    def close(self) -> None:
        """
        Close the idle connections.
        """
        while self._idle:
            self._idle.pop().close()

    async def _open(self) -> Connection:
        """
        Open a connection, through the proxy if there is one.

        Raises:
            WireError: The connection failed.
            SourceError: The trusted certificates cannot be read.
        """
        address, where = self.address, self._where
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
            said = f"{where} did not accept a connection within {CONNECT_SECONDS:g} s"
            raise WireError("request_timeout", said) from None
        except (socket.gaierror, UnicodeError) as error:
            said = f"the name of {where} cannot be resolved: {error}"
            raise WireError("name_unresolved", said) from None
        except ssl.SSLError as error:
            self._context = None
            why = getattr(error, "verify_message", "") or error.reason or str(error)
            is_other_name = getattr(error, "verify_code", 0) in (62, 64)  # X509_V_ERR_*_MISMATCH
            advice = "Use a name of the endpoint that its certificate contains."
            said = f"the TLS handshake with {where} failed: {why}"
            raise WireError("tls_failed", said, advice if is_other_name else "") from None
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)
            raise WireError("endpoint_unreachable", f"cannot connect to {where}: {why}") from None

    async def _open_tunnel(self, proxy: str) -> Connection:
        """
        Request a tunnel from the proxy, and begin TLS in it.
        """
        address, loop = self.address, asyncio.get_running_loop()
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
                raise WireError("proxy_refused", f"{self._where} answered CONNECT with {said}")
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
        Connect to the first address of the place that accepts a connection; return transport and
        protocol.

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


def _head(method: str, target: str, headers: Mapping[str, str]) -> bytes:
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
