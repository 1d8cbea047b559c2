"""
One kept HTTP connection to a git server.
"""

from __future__ import annotations

import base64
import http.client
import socket
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import SplitResult, unquote

from git_sync_wrapper.answer import Answer, NotHttp, read_answer
from git_sync_wrapper.way import Way
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import CycleAbandoned, Fence

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 30.0
# A connection that nobody used for longer may be gone without a word.
IDLE_SECONDS = 60.0

ADVICE = {
    "name_unresolved": "Check the host in GITSYNC_REPO, and the DNS of the cluster.",
    "proxy_refused": "Check HTTPS_PROXY, HTTP_PROXY and NO_PROXY.",
    "remote_timeout": "Check the route to the git server: packets that are dropped look like this.",
    "remote_unreachable": "Check that the git server is up, and the route and the proxy to it.",
    "tls_failed": "If a company's own CA signs the traffic, point GIT_SSL_CAINFO at its bundle.",
}


class RemoteError(SidecarError):
    """
    The server gave no whole answer.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message, ADVICE[reason])


class Remote:
    """
    One server, by one connection at a time; a connection that was closed meanwhile is made anew.
    """

    def __init__(self, url: SplitResult, way: Way) -> None:
        self._url = url
        self._way = way
        self._host = url.netloc.rpartition("@")[2]
        self._socket: socket.socket | None = None
        self._used_at = 0.0

    def request(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes = b""
    ) -> bytes:
        """
        Return the bytes of a request, which may be sent again and again.

        Raises:
            ValueError: There is a line break or an odd letter in the URL or a header.
        """
        proxy = self._way.proxy
        target = path
        if proxy and self._url.scheme == "http":
            target = f"http://{self._host}{path}"
            headers = {**headers, **_proxy_headers(proxy)}
        if body:
            headers = {**headers, "Content-Length": str(len(body))}
        fields = {"Host": self._host, "Accept": "*/*", **headers, **self._way.headers}
        lines = [f"{method} {target} HTTP/1.1", *(f"{k}: {v}" for k, v in fields.items())]
        if not "".join(lines).isprintable():
            raise ValueError("the URL or a header has a line break in it")
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + body

    def ask(self, request: bytes, fence: Fence) -> Answer:
        """
        Send a request and return the answer, whatever its status.

        Raises:
            RemoteError: There is none.
            CycleAbandoned: The fence was revoked meanwhile.
        """
        fence.on_revoke(self._hang_up)
        if time.monotonic() - self._used_at > IDLE_SECONDS:
            self.close()
        is_kept = self._socket is not None
        try:
            try:
                return self._ask(request)
            except (ConnectionResetError, BrokenPipeError, ssl.SSLEOFError):
                if not is_kept:
                    raise
                self.close()  # it had been closed while it was idle
                return self._ask(request)
        except (OSError, ValueError) as error:
            self.close()
            if fence.is_revoked:
                raise CycleAbandoned from None
            raise self._explain(error) from None

    def close(self) -> None:
        """
        Close the connection, if there is one; the next request makes another.
        """
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _ask(self, request: bytes) -> Answer:
        ends_at = time.monotonic() + ANSWER_SECONDS
        if self._socket is None:
            self._socket = self._connect()
        self._socket.sendall(request)
        answer = read_answer(self._socket, ends_at)
        self._used_at = time.monotonic()
        if answer.is_last:
            self.close()
        return answer

    def _connect(self) -> socket.socket:
        """
        Return a connection to the server, through the proxy where there is one.
        """
        proxy = self._way.proxy
        host, port = self._url.hostname or "", self._url.port
        at = (proxy.hostname or "", proxy.port or 1080) if proxy else (host, port)
        if self._url.scheme == "http":
            connection = http.client.HTTPConnection(*at, timeout=CONNECT_SECONDS)
        else:
            connection = http.client.HTTPSConnection(
                *at, timeout=CONNECT_SECONDS, context=_context(self._way)
            )
            if proxy:
                connection.set_tunnel(host, port or 443, dict(_proxy_headers(proxy)))
        try:
            connection.connect()
        except http.client.HTTPException as error:  # of a proxy
            connection.close()
            raise NotHttp(str(error)) from None
        except OSError:
            connection.close()
            raise
        connection.sock.settimeout(ANSWER_SECONDS)
        found: socket.socket = connection.sock
        return found

    def _hang_up(self) -> None:
        """
        End what the connection waits for; from any thread.
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
                return RemoteError("tls_failed", f"there is no {self._way.ca_file}")
            case ssl.SSLError():
                what = getattr(error, "verify_message", "") or error.reason or str(error)
                return RemoteError("tls_failed", f"no TLS with {host}: {what}")
            case TimeoutError():
                return RemoteError("remote_timeout", f"{host} did not answer in time")
            case OSError() if str(error).startswith("Tunnel connection failed"):
                return RemoteError("proxy_refused", f"the proxy let us not to {host}: {error}")
            case OSError():
                said = error.strerror or str(error)
                return RemoteError("remote_unreachable", f"cannot talk to {host}: {said}")
        return RemoteError("remote_unreachable", f"{host} answers as no web server does: {error}")


def _context(way: Way) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=way.ca_file)
    # git accepts the CAs of companies that lack an extension; so do we.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not way.verifies:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _proxy_headers(proxy: SplitResult) -> Mapping[str, str]:
    if not proxy.username:
        return {}
    return {"Proxy-Authorization": basic(unquote(proxy.username), unquote(proxy.password or ""))}


def basic(username: str, password: str) -> str:
    """
    Return the ``Authorization`` of username and password.
    """
    pair = f"{username}:{password}".encode("utf-8", "surrogateescape")
    return f"Basic {base64.b64encode(pair).decode()}"
