"""
A server of the standard library that runs in a thread during a `with` statement.
"""

import threading
from socketserver import TCPServer
from typing import Self


class Serving:
    """
    Base of servers: runs the `_server` that the constructor of a subclass creates.
    """

    _server: TCPServer

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
