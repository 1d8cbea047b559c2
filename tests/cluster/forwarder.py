"""
Forwards an address of this machine to another one, for pods of a cluster without Services.
"""

from __future__ import annotations

import contextlib
import os
import socket
from socketserver import BaseRequestHandler, ThreadingTCPServer

from tests.support.http.fake_proxy import pump
from tests.support.http.serving import Serving

Address = tuple[str, int]


class Forwarder(Serving):
    """
    Forwards TCP connections from CLUSTER_HOST to another address.

    Attributes:
        target: The other address; while it is None, connections are closed immediately.
    """

    def __init__(self, target: Address | None = None) -> None:
        self.target = target
        self._server = _Server(self)

    @property
    def address(self) -> Address:
        """
        The host and port on which it listens.
        """
        host, port = self._server.server_address[:2]
        return str(host), int(port)

    @property
    def endpoint(self) -> str:
        """
        The address as a URL.
        """
        host, port = self.address
        return f"http://{host}:{port}"


class _Server(ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, forwarder: Forwarder) -> None:
        self.forwarder = forwarder
        super().__init__((os.environ["CLUSTER_HOST"], 0), _Connection)


class _Connection(BaseRequestHandler):
    server: _Server

    def handle(self) -> None:
        target = self.server.forwarder.target
        if target is None:
            return
        with contextlib.suppress(OSError), socket.create_connection(target) as upstream:
            pump(self.request, upstream)
