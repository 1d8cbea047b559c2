"""
A fake HTTPS proxy, with which tests use AWS's real host names on loopback.
"""

import contextlib
import select
import socket
from socketserver import BaseRequestHandler, ThreadingTCPServer

from tests.support.http.serving import Serving


class FakeProxy(Serving):
    """
    An HTTPS proxy that connects every CONNECT to the same local server, whatever its host.

    For AWS's host names, that server is a `FakeS3` with a certificate for `*.amazonaws.com`.

    Attributes:
        asked: `host:port` of every CONNECT.
    """

    def __init__(self, port: int) -> None:
        self.asked: list[str] = []
        self._server = _Proxy(self, port)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"


class _Proxy(ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, proxy: FakeProxy, port: int) -> None:
        self.proxy = proxy
        self.port = port
        super().__init__(("127.0.0.1", 0), _Tunnel)


class _Tunnel(BaseRequestHandler):
    server: _Proxy

    def handle(self) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            received = self.request.recv(1)
            if not received:
                return
            head += received
        method, host, _ = head.decode().split(" ", 2)
        self.server.proxy.asked.append(host)
        if method != "CONNECT":
            self.request.sendall(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n")
            return
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self.server.port)) as upstream,
        ):
            self.request.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            pump(self.request, upstream)


def pump(left: socket.socket, right: socket.socket) -> None:
    """
    Copy data in both directions until one side closes.
    """
    other = {left: right, right: left}
    while True:
        for readable in select.select([left, right], [], [])[0]:
            data = readable.recv(65536)
            if not data:
                return
            other[readable].sendall(data)
