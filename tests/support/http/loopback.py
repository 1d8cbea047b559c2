"""
A recording HTTP server on 127.0.0.1 that misbehaves on demand.

It is the base of the fakes of S3 and of the AWS credential services. A fake computes
the good `Answer` to a `Request`; a `Fault` decides what is sent instead (see
`tests.support.http.faults`). The test can inject faults at any time; they apply to
matching requests until `heal()`.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException, responses
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any, Self, cast
from urllib.parse import parse_qsl, unquote

from tests import Texts
from tests.support.program import keep_port


@dataclass(frozen=True)
class Request:
    """
    A request as it arrived.

    Args:
        target: path and query exactly as sent.
        headers: names in lower case.
        connection: number of the TCP connection, counted from 1; equal numbers mean
            reuse.
    """

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    connection: int

    @property
    def path(self) -> str:
        """
        The decoded path.
        """
        return unquote(self.raw_path)

    @property
    def raw_path(self) -> str:
        """
        The path as sent, without the origin (scheme and host) that clients send to a
        proxy.
        """
        path = self.target.partition("?")[0]
        return path if path.startswith("/") else "/" + path.split("/", 3)[3]

    @property
    def raw_query(self) -> str:
        return self.target.partition("?")[2]

    @property
    def query(self) -> Texts:
        return dict(parse_qsl(self.raw_query, keep_blank_values=True))

    @property
    def form(self) -> Texts:
        """
        The fields of a form POST.
        """
        return dict(parse_qsl(self.body.decode(), keep_blank_values=True))


@dataclass(frozen=True)
class Answer:
    """
    A good answer; `Content-Length` is added when it is sent.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


Fault = Callable[["Exchange"], None]
"""Handles a request instead of sending the good answer."""

Match = Callable[[Request], bool]


@dataclass
class _Rule:
    fault: Fault
    match: Match
    remaining: int | None
    """
    Number of requests it still applies to; None = until `heal()`.
    """


class LoopbackServer:
    """
    Base of the fakes, which implement only `good_answer`.

    Started by `start` or by a `with` statement, whose end asserts that the fake had no
    `bugs`. `stop` followed by `start` is an outage on the same port. Each connection
    has a thread; `stop` abandons threads that hang.

    Args:
        tls: serve HTTPS with this context; None = plain HTTP.
        host: a loopback address or name.

    Attributes:
        connections: how many it has accepted.
    """

    def __init__(
        self, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
    ) -> None:
        self.requests: list[Request] = []
        self.bugs: list[str] = []
        self.port = 0
        self._host = host
        self._tls = tls
        self._rules: list[_Rule] = []
        self._changed = threading.Condition()
        self._released = threading.Event()
        self.connections = 0
        self._http: _Server | None = None
        # Reserves the port from the first start to the end, even while the server is
        # stopped.
        self._kept: socket.socket | None = None

    @property
    def endpoint(self) -> str:
        """
        The URL of the server, valid after `start`.
        """
        return f"{'https' if self._tls else 'http'}://{self._host}:{self.port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._kept:
            self._kept.close()
            self._kept = None
        assert [] == self.bugs

    def start(self) -> None:
        """
        Start answering; a later start uses the same port.
        """
        if self._kept is None:
            self._kept = keep_port(self._host, self.port)
            self.port = self._kept.getsockname()[1]
        http = _Server((self._host, self.port), self, self._tls)
        threading.Thread(target=http.serve_forever, args=(0.05,), daemon=True).start()
        self._http = http

    def stop(self) -> None:
        """
        Refuse new connections and drop the open ones.
        """
        if self._http:
            self.release()
            self._http.shutdown()
            self._http.server_close()
            self._http.drop_connections()
            self._http = None

    def good_answer(self, request: Request) -> Answer:
        """
        Return a healthy service's answer, computed for each request from the current
        state.
        """
        raise NotImplementedError

    def inject(
        self, fault: Fault, match: Match | None = None, *, times: int | None = None
    ) -> None:
        """
        Apply a fault to the requests that match, the newest rule first.

        Args:
            match: None = all requests.
            times: number of requests; None = until `heal()`.
        """
        with self._changed:
            self._rules.insert(0, _Rule(fault, match or (lambda request: True), times))

    def heal(self) -> None:
        """
        Remove all faults and let hanging answers continue.
        """
        with self._changed:
            self._rules.clear()
        self.release()

    def release(self) -> None:
        """
        Let the currently hanging answers continue; later ones hang again.
        """
        released = self._released
        self._released = threading.Event()
        released.set()

    def wait_for(
        self, match: Match | None = None, *, count: int = 1, timeout: float = 10
    ) -> None:
        """
        Wait until that many matching requests have arrived since the last `forget()`.

        Raises:
            TimeoutError: Fewer requests arrived within `timeout` seconds.
        """
        with self._changed:
            enough = self._changed.wait_for(
                lambda: len(self.seen(match)) >= count, timeout
            )
        if not enough:
            raise TimeoutError(
                f"{len(self.seen(match))} of {count} requests in {timeout} s"
            )

    def seen(self, match: Match | None = None) -> list[Request]:
        """
        Return the recorded requests that match.
        """
        return [
            request
            for request in list(self.requests)
            if match is None or match(request)
        ]

    def forget(self) -> None:
        """
        Clear the record of requests.
        """
        with self._changed:
            self.requests.clear()

    def _count_connection(self) -> int:
        with self._changed:
            self.connections += 1
            return self.connections

    def _record(self, request: Request) -> Fault:
        """
        Record the request and choose its fault; `send_good` if none applies.
        """
        with self._changed:
            self.requests.append(request)
            self._changed.notify_all()
            for rule in self._rules:
                if rule.remaining != 0 and rule.match(request):
                    if rule.remaining is not None:
                        rule.remaining -= 1
                    return rule.fault
        return send_good


class Exchange:
    """
    A request and the means to answer it, correctly or not.
    """

    def __init__(
        self, server: LoopbackServer, handler: _Handler, request: Request
    ) -> None:
        self.request = request
        self._server = server
        self._handler = handler

    @property
    def connection(self) -> socket.socket:
        return cast(socket.socket, self._handler.connection)

    def good(self) -> Answer:
        """
        Return the answer of a healthy service.
        """
        return self._server.good_answer(self.request)

    def send(self, answer: Answer) -> None:
        """
        Send a complete, correctly framed answer.
        """
        self.send_head(answer.status, framed(answer))
        if self.request.method != "HEAD" and answer.status not in (204, 304):
            self.send_bytes(answer.body)

    def send_head(self, status: int, headers: Mapping[str, str]) -> None:
        lines = [f"HTTP/1.1 {status} {responses.get(status, 'Odd')}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.send_bytes("\r\n".join([*lines, "", ""]).encode("latin-1"))

    def send_bytes(self, data: bytes) -> None:
        """
        Send bytes unchanged.
        """
        self._handler.wfile.write(data)
        self._handler.wfile.flush()

    def hang(self) -> None:
        """
        Send nothing until `release()`, `heal()` or `stop()`.
        """
        self._server._released.wait()

    def pause(self, seconds: float) -> None:
        """
        Wait that long, or until released.
        """
        self._server._released.wait(seconds)

    def close(self) -> None:
        """
        Close the connection when the fault returns.
        """
        self._handler.close_connection = True

    def reset(self) -> None:
        """
        Drop the connection with a TCP reset.
        """
        self._handler.connection.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        self.close()


def framed(answer: Answer) -> Texts:
    """
    Return the headers of an answer, including Content-Length.
    """
    return {"Content-Length": str(len(answer.body)), **answer.headers}


def send_good(exchange: Exchange) -> None:
    """
    Send the good answer.
    """
    exchange.send(exchange.good())


class _Server(ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(
        self, address: tuple[str, int], fake: LoopbackServer, tls: ssl.SSLContext | None
    ) -> None:
        self.fake = fake
        self.open_connections: set[socket.socket] = set()
        super().__init__(address, _Handler)
        if tls:
            self.socket = tls.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )

    def drop_connections(self) -> None:
        """
        Wake the threads that wait for another request.
        """
        for connection in list(self.open_connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """
        Record an error of the fake; clients and upstream servers that disconnect are
        not errors.
        """
        if not isinstance(sys.exception(), (OSError, HTTPException)):
            self.fake.bugs.append(traceback.format_exc())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        server = cast(_Server, self.server)
        server.open_connections.add(self.request)
        self.number = server.fake._count_connection()
        super().setup()

    def finish(self) -> None:
        cast(_Server, self.server).open_connections.discard(self.request)
        with contextlib.suppress(OSError):
            super().finish()

    def answer(self) -> None:
        fake = cast(_Server, self.server).fake
        length = int(self.headers.get("Content-Length", 0))
        request = Request(
            self.command,
            self.path,
            {name.lower(): value for name, value in self.headers.items()},
            self.rfile.read(length),
            self.number,
        )
        fake._record(request)(Exchange(fake, self, request))

    do_CONNECT = do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer

    def log_message(self, format: str, *args: object) -> None:
        """
        Log nothing: `LoopbackServer.requests` is the record.
        """


@contextlib.contextmanager
def dead_endpoint() -> Iterator[str]:
    """
    Provide the URL of a port that accepts connections but never answers: a black hole.
    """
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
