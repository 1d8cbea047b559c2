"""
An HTTP server that answers probes despite hostile clients, hanging disks and used-up limits.

It has two threads from its start on, and no request needs another one: the limit of processes may
be used up. One reads all requests and waits for no client, the other one gives the answers that may
wait for a disk. Each connection is closed after one answer.
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
from queue import Full, Queue
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
_FIRST_LINE = re.compile(r"\s*(\S+) (\S+) HTTP/1\.\d\r?\n")
_HEADERS = (
    f"Content-Security-Policy: {CONTENT_SECURITY_POLICY}",
    "X-Content-Type-Options: nosniff",
    "Cache-Control: no-store",
    "Connection: close",
    "Server: sidecar",
)

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

    It holds up to ``CONNECTIONS`` connections; another one closes the oldest. A client has
    ``CLIENT_SECONDS`` to send a request of up to ``REQUEST_BYTES``.

    Args:
        listening: A socket that listens.
        answer: Returns the answer to a path. It may wait, and then only the answers like it do.
        instant: The paths whose answers never wait.
    """

    def __init__(
        self,
        listening: socket.socket,
        answer: Callable[[str], Answer],
        instant: tuple[str, ...] = (),
    ) -> None:
        self._listening = listening
        self._answer = answer
        self._instant = instant
        self._selector = DefaultSelector()
        self._connections: list[_Connection] = []
        """Oldest first."""
        self._requests: Queue[tuple[socket.socket, str, bool] | None] = Queue(CONNECTIONS)
        """Those that the second thread answers."""

    @property
    def port(self) -> int:
        return int(self._listening.getsockname()[1])

    def start(self) -> None:
        """
        Start both threads, which end with the process or with :meth:`close`.

        Raises:
            OSError: No thread can be started.
        """
        try:
            for run in (self._serve, self._give_answers):
                threading.Thread(target=run, name="http", daemon=True).start()
        except RuntimeError as error:
            self.close()
            raise OSError(errno.EAGAIN, str(error)) from error
        if self._listening.family != socket.AF_UNIX:
            host, port = self._listening.getsockname()[:2]
            log.info(
                "http_listening", address=f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            )

    def close(self) -> None:
        """
        Accept no further connections. All of them, the socket and the threads end soon.
        """
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)

    def _serve(self) -> None:
        with self._listening, self._selector:
            self._listening.setblocking(False)
            self._selector.register(self._listening, EVENT_READ)
            while self._listening.fileno() >= 0:
                # An idle server sleeps until a client comes.
                first = self._connections[0].ends_at if self._connections else None
                wait = first and max(0.0, first - time.monotonic())
                for key, _ in self._selector.select(wait):
                    if key.data is None:
                        self._accept()
                    elif key.data in self._connections:
                        self._receive(key.data)
                self._end_before(time.monotonic())
            self._end_before(float("inf"))
        self._requests.put(None)

    def _end_before(self, moment: float) -> None:
        for connection in [one for one in self._connections if one.ends_at <= moment]:
            self._release(connection).close()

    def _accept(self) -> None:
        try:
            client, _ = self._listening.accept()
        except OSError as error:
            if error.errno in _OUT_OF_ROOM:
                # The connection still waits, so the next call would fail at once.
                time.sleep(RETRY_SECONDS)
            elif error.errno == errno.EINVAL:
                self._listening.close()
            return
        client.setblocking(False)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        if len(self._connections) >= CONNECTIONS:
            self._release(self._connections[0]).close()
        connection = _Connection(client, time.monotonic() + CLIENT_SECONDS)
        self._connections.append(connection)
        self._selector.register(client, EVENT_READ, connection)

    def _release(self, connection: _Connection) -> socket.socket:
        self._connections.remove(connection)
        self._selector.unregister(connection.client)
        return connection.client

    def _receive(self, connection: _Connection) -> None:
        try:
            received = connection.client.recv(REQUEST_BYTES)
        except OSError:
            received = b""
        if not connection.is_answered:
            connection.received += received
        if not received or len(connection.received) > REQUEST_BYTES:
            self._release(connection).close()
        elif not connection.is_answered and _END.search(connection.received):
            self._take(connection)

    def _take(self, connection: _Connection) -> None:
        """
        Answer a complete request, or pass it on to the second thread.
        """
        found = _FIRST_LINE.match(connection.received.decode("latin-1"))
        method, path = found.groups() if found else ("", "")
        log.debug("http_request", method=method, path=path)
        client, has_body = connection.client, method != "HEAD"
        if method not in ("GET", "HEAD"):
            status = HTTPStatus.METHOD_NOT_ALLOWED if found else HTTPStatus.BAD_REQUEST
            _send(client, Answer(status, b'{"error": "GET and HEAD of HTTP/1 only"}\n'))
        elif path.partition("?")[0] in self._instant:
            self._give(client, path, has_body)
        else:
            self._release(connection)
            try:
                self._requests.put_nowait((client, path, has_body))
            except Full:  # the second thread is stuck, and the kubelet will ask again
                client.close()
        # What else the client sends is read and ignored: to close now might discard the answer.
        connection.is_answered = True

    def _give_answers(self) -> None:
        while request := self._requests.get():
            self._give(*request)
            request[0].close()

    def _give(self, client: socket.socket, path: str, has_body: bool) -> None:
        try:
            answer = self._answer(path)
        except Exception:
            log.exception("http_answer_failed", path=path)
            answer = Answer(HTTPStatus.INTERNAL_SERVER_ERROR, b'{"error": "see the log"}\n')
        _send(client, answer, has_body)


class _Connection:
    """
    A client that has not sent its whole request yet, or has not read its answer yet.
    """

    def __init__(self, client: socket.socket, ends_at: float) -> None:
        self.client = client
        self.ends_at = ends_at
        self.received = b""
        self.is_answered = False


def _send(client: socket.socket, answer: Answer, has_body: bool = True) -> None:
    status, body, content_type = answer
    lines = [f"HTTP/1.1 {status.value} {status.phrase}", f"Content-Type: {content_type}"]
    lines += [f"Content-Length: {len(body)}", *_HEADERS, "\r\n"]
    with suppress(OSError):  # the client has gone
        client.send("\r\n".join(lines).encode() + (body if has_body else b""))
        client.shutdown(socket.SHUT_WR)


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
        why = (isinstance(error, OSError) and error.strerror) or str(error)
        why = why.partition(" (while attempting")[0]  # added by create_server
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            why += " (another container of this pod?): set another port, or 0 for any free one"
        problem = Problem(setting, f"{host}:{port}", f"cannot listen there: {why}")
        raise SettingsError([problem]) from error
