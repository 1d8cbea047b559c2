"""
A persistent HTTP connection to a git server, for polls; also used for ``--askpass-url``.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import SplitResult

from git_sync_wrapper.http.answer import Answer, NotHttp, Reader, read_answer
from git_sync_wrapper.http.route import Way, proxy_headers, tls_context
from git_sync_wrapper.refusals import REFUSALS
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import CycleAbandoned, Fence


@dataclass(frozen=True)
class Patience:
    """
    Time limits of a connection.
    """

    connect_seconds: float = 10.0
    answer_seconds: float = 30.0
    idle_seconds: float = 60.0
    """A connection that was idle for longer may have been dropped silently, and is replaced."""


PATIENCE = Patience()


class RemoteError(SidecarError):
    """
    The server sent no complete answer.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message, REFUSALS[reason].advice)


class Remote:
    """
    One server, over one connection at a time; a connection that the server closed is replaced.
    """

    def __init__(self, url: SplitResult, way: Way, patience: Patience = PATIENCE) -> None:
        self._url = url
        self._way = way
        self._patience = patience
        self._host = url.netloc.rpartition("@")[2]
        self._socket: socket.socket | None = None
        self._used_at = 0.0

    def request(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes = b""
    ) -> bytes:
        """
        Return the bytes of a request, which may be sent repeatedly.

        Raises:
            ValueError: The URL or a header contains a character that HTTP does not allow.
        """
        proxy = self._way.proxy
        target = path
        if proxy and self._url.scheme == "http":
            target = f"http://{self._host}{path}"
            headers = {**headers, **proxy_headers(proxy)}
        if body:
            headers = {**headers, "Content-Length": str(len(body))}
        fields = {"Host": self._host, "Accept": "*/*", **headers, **self._way.headers}
        lines = [f"{method} {target} HTTP/1.1", *(f"{k}: {v}" for k, v in fields.items())]
        if not (text := "".join(lines)).isprintable() or max(text) > "\xff":
            raise ValueError("the URL or a header contains a character that HTTP does not allow")
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + body

    def ask(self, request: bytes, fence: Fence) -> Answer:
        """
        Send a request and return the answer, whatever its status.

        Raises:
            RemoteError: No complete answer arrived.
            CycleAbandoned: The fence was revoked meanwhile.
        """
        fence.on_revoke(self._hang_up)
        if time.monotonic() - self._used_at > self._patience.idle_seconds:
            self.close()
        is_kept = self._socket is not None
        try:
            try:
                return self._ask(request)
            except (ConnectionResetError, BrokenPipeError, ssl.SSLEOFError):
                if not is_kept or fence.is_revoked:
                    raise
                self.close()  # the server had closed it while it was idle
                return self._ask(request)
        except (OSError, ValueError) as error:
            self.close()
            if fence.is_revoked:
                raise CycleAbandoned from None
            raise self._explain(error) from None

    def close(self) -> None:
        """
        Close the connection, if it is open; the next request opens a new one.
        """
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _ask(self, request: bytes) -> Answer:
        ends_at = time.monotonic() + self._patience.answer_seconds
        if self._socket is None:
            self._socket = self._connect()
        self._socket.settimeout(self._patience.answer_seconds)
        self._socket.sendall(request)
        answer = read_answer(self._socket, ends_at)
        self._used_at = time.monotonic()
        if answer.is_last:
            self.close()
        return answer

    def _connect(self) -> socket.socket:
        """
        Return a connection to the server, through the proxy if one is set.

        Raises:
            OSError, ValueError, RemoteError
        """
        proxy = self._way.proxy
        host, context = self._url.hostname or "", None
        port = self._url.port or 80
        if self._url.scheme == "https":
            port, context = self._url.port or 443, tls_context(self._way)
        at = (proxy.hostname, proxy.port or 1080) if proxy else (host, port)
        connect_seconds = self._patience.connect_seconds
        connection = socket.create_connection(at, connect_seconds)
        if context is None:
            return connection
        try:
            if proxy:
                ends_at = time.monotonic() + connect_seconds
                _ask_for_tunnel(connection, proxy, host, port, ends_at)
            connection.settimeout(connect_seconds)
            return context.wrap_socket(connection, server_hostname=host)
        except BaseException:
            connection.close()
            raise

    def _hang_up(self) -> None:
        """
        Shut the connection down, from any thread, to end a wait.
        """
        with suppress(AttributeError, OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]

    def _explain(self, error: Exception) -> RemoteError:
        host = self._url.hostname
        match error:
            case socket.gaierror():
                name = self._way.proxy.hostname if self._way.proxy else host
                return RemoteError("name_unresolved", f"the name {name} does not resolve")
            case FileNotFoundError():
                return RemoteError("tls_failed", f"{self._way.ca_file} does not exist")
            case ssl.SSLEOFError() | ssl.SSLZeroReturnError():
                said = f"connection to {host} failed: it was cut"
                return RemoteError("remote_unreachable", said)
            case ssl.SSLError():
                what = getattr(error, "verify_message", "") or error.reason or str(error)
                return RemoteError("tls_failed", f"TLS with {host} failed: {what}")
            case TimeoutError():
                return RemoteError("remote_timeout", f"{host} did not answer in time")
            case OSError():
                said = error.strerror or str(error)
                return RemoteError("remote_unreachable", f"connection to {host} failed: {said}")
            case NotHttp():
                said = f"{host} sent an invalid HTTP response: {error}"
                return RemoteError("remote_unreachable", said)
        return RemoteError("remote_unreachable", f"connection to {host} failed: {error}")


def _ask_for_tunnel(
    connection: socket.socket, proxy: SplitResult, host: str, port: int, ends_at: float
) -> None:
    """
    Ask the proxy to connect to the server.

    Args:
        ends_at: When to give up, on the monotonic clock.

    Raises:
        RemoteError: The proxy refuses.
        NotHttp, OSError
    """
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    fields = {"Host": target, **proxy_headers(proxy)}
    lines = [f"CONNECT {target} HTTP/1.1", *(f"{k}: {v}" for k, v in fields.items())]
    connection.sendall("\r\n".join([*lines, "", ""]).encode("ascii"))
    reader = Reader(connection, ends_at)
    while not reader.status:
        reader.receive()
    if reader.status != 200:
        said = f"the proxy refused to connect to {host}: it answered {reader.status}"
        raise RemoteError("proxy_refused", said)
