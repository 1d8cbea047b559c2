"""
A server of the standard library that runs in a thread for the length of a block.
"""

import threading
from socketserver import TCPServer
from typing import Self


class Serving:
    """
    What serves with `_server`, which its constructor makes.
    """

    _server: TCPServer

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
