"""
A fake HTTPS proxy, with which tests use AWS's real host names on loopback.
"""

import contextlib
import select
import socket

from tests.support.http.loopback import Answer, Exchange, LoopbackServer, Request


class FakeProxy(LoopbackServer):
    """
    An HTTPS proxy that connects every CONNECT to the same local server, whatever its
    host.

    For AWS's host names, that server is a `FakeS3` with a certificate for
    `*.amazonaws.com`.

    Args:
        port: The port of that server.
    """

    def __init__(self, port: int) -> None:
        super().__init__()
        self._upstream = ("127.0.0.1", port)
        self.inject(self._connect, lambda request: request.method == "CONNECT")

    @property
    def asked(self) -> list[str]:
        """
        `host:port` of every CONNECT, and the URL of every other request.
        """
        return [request.target for request in self.requests]

    def good_answer(self, request: Request) -> Answer:
        return Answer(405)

    def _connect(self, exchange: Exchange) -> None:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(self._upstream) as upstream,
        ):
            exchange.send_bytes(b"HTTP/1.1 200 Connection established\r\n\r\n")
            pump(exchange.connection, upstream)
        exchange.close()


def pump(left: socket.socket, right: socket.socket) -> None:
    """
    Copy data in both directions until one side closes.
    """
    while True:
        for readable in select.select([left, right], [], [])[0]:
            data = readable.recv(65536)
            if not data:
                return
            {left: right, right: left}[readable].sendall(data)
