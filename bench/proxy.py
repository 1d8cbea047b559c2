"""
Count the requests to an HTTP server on loopback, without changing them.

The proxy itself costs CPU and time, so requests are counted in separate runs.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections import Counter
from typing import Self

_REQUEST = re.compile(rb"^([A-Z]+) (/[^ ]*) HTTP/1\.1\r$", re.MULTILINE)
_LISTS = re.compile(rb"[?&](?:list-type|prefix|delimiter)=")


class CountingProxy:
    """
    Passes bytes between clients and one server; requests must not have a body.

    Args:
        port: The port of the server on 127.0.0.1.
    """

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def take(self) -> Counter[str]:
        """
        Return the counts since the last call by kind: LIST, GET, HEAD; and connections.
        """
        with self._lock:
            counts, self._counts = self._counts, Counter()
        return counts

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            self._count("connections")
            server = socket.create_connection(("127.0.0.1", self._server_port))
            for source, sink, is_counted in ((client, server, True), (server, client, False)):
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(
                    target=self._pass, args=(source, sink, is_counted), daemon=True
                ).start()

    def _pass(self, source: socket.socket, sink: socket.socket, is_counted: bool) -> None:
        rest = b""
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 18):
                if is_counted:
                    lines, _, rest = (rest + data).rpartition(b"\n")
                    for method, target in _REQUEST.findall(lines):
                        self._count("LIST" if _LISTS.search(target) else method.decode())
                sink.sendall(data)
        # The thread of the other direction ends when its source is shut down.
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        source.close()

    def _count(self, kind: str) -> None:
        with self._lock:
            self._counts[kind] += 1
