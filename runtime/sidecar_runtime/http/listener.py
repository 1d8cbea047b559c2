"""
An HTTP server that answers probes despite hostile clients and used-up limits.

One thread, started once, serves all connections and waits for none of them: the limit of processes
may be used up, and a client may send nothing, or read nothing. Each connection is closed after one
answer.
"""

from __future__ import annotations

import errno
import re
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from selectors import EVENT_READ, DefaultSelector
from typing import NamedTuple

from sidecar_runtime.errors import Problem, SettingsError
from sidecar_runtime.http.page import CONTENT_SECURITY_POLICY
from sidecar_runtime.logs import get_logger

CONNECTIONS = 32
CLIENT_SECONDS = 5.0
REQUEST_BYTES = 64 << 10
RETRY_SECONDS = 0.2

# The kernel takes an answer of a third of this at once, even if the client does not read it.
_SEND_BUFFER_BYTES = 1 << 20
# No file descriptor or memory for another connection: accept(2).
_OUT_OF_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_END = re.compile(rb"\n\r?\n")
_FIRST_LINE = re.compile(rb"\s*(\S+) (\S+) HTTP/1\.\d\r?\n")
_HEADERS = f"""\
Content-Security-Policy: {CONTENT_SECURITY_POLICY}
X-Content-Type-Options: nosniff
Cache-Control: no-store
Connection: close
Server: sidecar
"""

log = get_logger("http")


class Answer(NamedTuple):
    """
    The answer to a GET request.
    """

    status: HTTPStatus
    body: bytes
    content_type: str = "application/json"


class Listener:
    """
    Answers GET and HEAD requests on one socket; no request changes anything.

    It holds up to ``CONNECTIONS`` connections without a complete request; another one closes the
    oldest. A client has ``CLIENT_SECONDS`` to send a request of up to ``REQUEST_BYTES``.

    Args:
        listening: A socket that listens.
        answer: Returns the answer to a path, from memory: all other clients wait for it.
    """

    def __init__(self, listening: socket.socket, answer: Callable[[str], Answer]) -> None:
        self._listening = listening
        self._answer = answer
        self._selector = DefaultSelector()
        self._clients: list[_Client] = []
        """Oldest first."""
        self._is_closed = False

    @property
    def port(self) -> int:
        return int(self._listening.getsockname()[1])

    def start(self) -> None:
        """
        Start the thread, which ends with the process or with :meth:`close`.

        Raises:
            RuntimeError: No thread can be started.
        """
        threading.Thread(target=self._serve, name="http", daemon=True).start()
        if self._listening.family != socket.AF_UNIX:
            host, port = self._listening.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            log.info("http_listening", address=f"{shown}:{port}")

    def close(self) -> None:
        """
        Accept no further connections. All of them, the socket and the thread end soon.
        """
        self._is_closed = True
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)  # wakes the thread

    def _serve(self) -> None:
        with self._listening, self._selector:
            self._listening.setblocking(False)
            self._selector.register(self._listening, EVENT_READ)
            while not self._is_closed:
                # An idle server sleeps until a client comes.
                first = self._clients[0].ends_at if self._clients else None
                wait_seconds = first and max(0.0, first - time.monotonic())
                for key, _ in self._selector.select(wait_seconds):
                    if key.data is None:
                        self._accept()
                    elif key.data in self._clients:
                        self._receive(key.data)
                self._drop_until(time.monotonic())
            self._drop_until(float("inf"))

    def _drop_until(self, moment: float) -> None:
        while self._clients and self._clients[0].ends_at <= moment:
            self._release(self._clients[0]).socket.close()

    def _release(self, client: _Client) -> _Client:
        self._clients.remove(client)
        self._selector.unregister(client.socket)
        return client

    def _accept(self) -> None:
        try:
            client = _Client(self._listening.accept()[0])
        except OSError as error:
            if error.errno in _OUT_OF_ROOM:  # the client still waits, so a retry would fail at once
                time.sleep(RETRY_SECONDS)
            return
        if len(self._clients) >= CONNECTIONS:
            self._release(self._clients[0]).socket.close()
        self._clients.append(client)
        self._selector.register(client.socket, EVENT_READ, client)

    def _receive(self, client: _Client) -> None:
        try:
            received = client.socket.recv(REQUEST_BYTES)
        except OSError:
            received = b""
        client.request += received
        if _END.search(client.request):
            self._release(client).send(self._answer_to(client))
        elif not received or len(client.request) > REQUEST_BYTES:
            self._release(client).socket.close()

    def _answer_to(self, client: _Client) -> Answer:
        found = _FIRST_LINE.match(client.request)
        method, path = (part.decode("latin-1") for part in found.groups()) if found else ("", "")
        log.debug("http_request", method=method, path=path)
        client.wants_body = method != "HEAD"
        if method not in ("GET", "HEAD"):
            status = HTTPStatus.METHOD_NOT_ALLOWED if found else HTTPStatus.BAD_REQUEST
            return Answer(status, b'{"error": "GET and HEAD of HTTP/1 only"}\n')
        try:
            return self._answer(path)
        except Exception:
            log.exception("http_answer_failed", path=path)
            return Answer(HTTPStatus.INTERNAL_SERVER_ERROR, b'{"error": "see the log"}\n')


class _Client:
    """
    A connection, for one request.
    """

    def __init__(self, accepted: socket.socket) -> None:
        accepted.setblocking(False)
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        self.socket = accepted
        self.ends_at = time.monotonic() + CLIENT_SECONDS
        self.request = b""
        self.wants_body = True

    def send(self, answer: Answer) -> None:
        """
        Send an answer, and close the connection.
        """
        status, body, content_type = answer
        head = f"HTTP/1.1 {status.value} {status.phrase}\nContent-Type: {content_type}\n"
        head += f"Content-Length: {len(body)}\n{_HEADERS}\n"
        with self.socket, suppress(OSError):  # the client has gone
            self.socket.send(head.replace("\n", "\r\n").encode() + body * self.wants_body)


def listen(bind: tuple[str, int], setting: str) -> socket.socket:
    """
    Return a socket that listens on a host, or on all addresses of both families if it is empty.

    Args:
        setting: The name of the setting for `bind`, for the error.

    Raises:
        SettingsError: The address cannot be bound (a port in use, an address of another host).
    """
    host, port = bind
    has_both = socket.has_dualstack_ipv6()  # else the kernel has no IPv6; probes come from the node
    name = host or ("::" if has_both else "0.0.0.0")  # noqa: S104
    try:
        family, *_, address = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)[0]
        is_dual = has_both and family == socket.AF_INET6
        return socket.create_server(address[:2], family=family, dualstack_ipv6=is_dual)
    except (OSError, UnicodeError) as error:
        why = (getattr(error, "strerror", None) or str(error)).partition(" (while attempting")[0]
        if getattr(error, "errno", None) == errno.EADDRINUSE:
            why += " (another container of this pod?): set another port, or 0 for any free one"
        problem = Problem(setting, f"{host}:{port}", f"cannot listen there: {why}")
        raise SettingsError([problem]) from error
