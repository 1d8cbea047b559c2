"""
An address of this machine that leads elsewhere, for pods of a cluster without Services.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Self

from tests.support.fake_proxy import pump

Address = tuple[str, int]


class Forwarder:
    """
    Leads TCP connections to CLUSTER_HOST on to another address.

    Attributes:
        target: That address; None: nobody is there yet, and connections end at once.
    """

    def __init__(self, target: Address | None = None) -> None:
        self.target = target
        self._server = _Server(self)

    @property
    def address(self) -> Address:
        """
        Where it listens.
        """
        host, port = self._server.server_address[:2]
        return str(host), int(port)

    @property
    def endpoint(self) -> str:
        """
        The same as a URL.
        """
        host, port = self.address
        return f"http://{host}:{port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


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
