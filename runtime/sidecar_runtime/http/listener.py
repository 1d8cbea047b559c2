"""
An HTTP server whose probes stay reachable despite hostile or misbehaving clients.
"""

from __future__ import annotations

import errno
import socket
import socketserver
import threading
import time
from collections import deque
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from sidecar_runtime.errors import Problem, SettingsError
from sidecar_runtime.http.page import CONTENT_SECURITY_POLICY
from sidecar_runtime.logs import get_logger

CLIENT_TIMEOUT_SECONDS = 5.0
CONNECTIONS = 32
SELDOM_SECONDS = 86_400.0
RETRY_SECONDS = 0.2

# No file descriptor or memory for another connection: accept(2).
_OUT_OF_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

log = get_logger("http")


class BoundedServer(ThreadingHTTPServer):
    """
    A server that serves at most ``CONNECTIONS`` connections at a time.
    """

    daemon_threads = True
    allow_reuse_port = False
    request_queue_size = CONNECTIONS

    def __init__(self, address: Any, answers: type[RequestHandler]) -> None:
        self._connections: deque[socket.socket] = deque()
        super().__init__(address, answers)

    def serve_in_thread(self, name: str) -> None:
        """
        Serve in a daemon thread.
        """
        # It ends with the process, or through an event on its socket, so it need not poll: the
        # default of twice a second costs an idle sidecar 0.4 s of CPU an hour.
        threading.Thread(
            target=self.serve_forever, args=(SELDOM_SECONDS,), name=name, daemon=True
        ).start()

    def close(self) -> None:
        """
        Stop the thread of :meth:`serve_in_thread`, and close the socket.
        """
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)  # wakes the thread
        self.shutdown()
        self.server_close()

    def get_request(self) -> tuple[Any, Any]:
        try:
            return super().get_request()
        except OSError as error:
            # The connection still waits, and the loop of socketserver, which ignores every error,
            # would retry in a busy loop.
            if error.errno in _OUT_OF_ROOM:
                time.sleep(RETRY_SECONDS)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        # Clients that open endless connections, or send endlessly slowly, must neither exhaust
        # threads nor block the probes: the oldest connection is closed.
        with suppress(IndexError, OSError):
            if len(self._connections) >= CONNECTIONS:
                self._connections.popleft().shutdown(socket.SHUT_RDWR)
        self._connections.append(request)
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            with suppress(ValueError):
                self._connections.remove(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("http_request_failed", client=str(client_address))


class Listener(BoundedServer):
    """
    A server on one address, from :meth:`start` until the process ends.

    Args:
        setting: The name of the setting for `bind`, for the error.
        answers: The handler of requests.

    Raises:
        SettingsError: The address cannot be bound (a port in use, an address of another host).
    """

    def __init__(self, bind: tuple[str, int], setting: str, answers: type[RequestHandler]) -> None:
        host, port = bind
        try:
            self._bind(host, port, answers)
        except (OSError, UnicodeError) as error:
            why = (isinstance(error, OSError) and error.strerror) or str(error)
            if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
                why += " (another container of this pod?): set another port, or 0 for any free one"
            raise SettingsError(
                [Problem(setting, f"{host}:{port}", f"cannot listen there: {why}")]
            ) from error

    def _bind(self, host: str, port: int, answers: type[RequestHandler]) -> None:
        """
        Listen on the host, or on all addresses of both families if it is empty.
        """
        if not host and not socket.has_dualstack_ipv6():
            host = "0.0.0.0"  # noqa: S104 - the kernel has no IPv6; probes come from the node
        found = socket.getaddrinfo(host or "::", port, type=socket.SOCK_STREAM)
        self.address_family = found[0][0]
        self._is_dual_stack = not host
        super().__init__(found[0][4][:2], answers)

    def server_bind(self) -> None:
        if self._is_dual_stack and self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        # Skips HTTPServer.server_bind, which asks a name server for this host's name.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "", self.server_address[1]

    def start(self) -> None:
        """
        Serve in a daemon thread.
        """
        host, port = str(self.server_address[0]), self.server_address[1]
        shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.serve_in_thread("http")
        log.info("http_listening", address=shown)


class RequestHandler(BaseHTTPRequestHandler):
    """
    A handler of GET and HEAD requests only; no request changes anything.
    """

    protocol_version = "HTTP/1.1"
    server_version = "sidecar"
    sys_version = ""
    timeout = CLIENT_TIMEOUT_SECONDS

    def do_GET(self) -> None:
        """
        Answer with :meth:`answer`, which omits the body for HEAD.
        """
        raise NotImplementedError

    def do_HEAD(self) -> None:
        self.do_GET()

    def _refuse(self) -> None:
        self.close_connection = True
        self.answer(HTTPStatus.METHOD_NOT_ALLOWED, b'{"error": "GET and HEAD only"}\n')

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _refuse

    def answer(self, code: HTTPStatus, body: bytes, content_type: str = "application/json") -> None:
        """
        Send a complete response.
        """
        self.send_response(code)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        log.debug("http_request", line=format % args)
