"""
The Unix socket beside the snapshots: consumers on the same volume request older revisions there.

It is unreachable from the network and for requests forged through another server (SSRF), and it
works through a read-only mount. The answers are names, never paths.
"""

from __future__ import annotations

import json
import os
import re
import socket
import socketserver
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from sidecar_runtime.errors import SidecarError
from sidecar_runtime.http.listener import BoundedServer, RequestHandler
from sidecar_runtime.volume.files import stat_in
from sidecar_runtime.volume.trees import remove_tree

NAME = "ask.sock"
# Reasons that are permanent: a later request gets the same answer.
GONE = {"release_missing", "release_invalid", "commit_missing"}
_QUESTION = re.compile(r"/revisions/([0-9a-f]{40}|[0-9a-f]{64})")


class AskSocket(BoundedServer):
    """
    Answers ``GET /revisions/<id>``: 200 if its snapshot exists, 202 while it is being fetched,
    404 if the source does not contain it, 503 with the reason if it cannot be fetched now.

    Args:
        store: The open folder with the snapshots.
        has: Whether a snapshot of a revision exists.
        ask: As in :class:`~sidecar_runtime.asking.asked.Asked`.

    Raises:
        OSError: The socket cannot be created on that volume.
    """

    address_family = socket.AF_UNIX

    def __init__(
        self, store: int, has: Callable[[str], bool], ask: Callable[[str], SidecarError | None]
    ) -> None:
        self.has = has
        self.ask = ask
        remove_tree(NAME, store)
        # The real path may be longer than the 107 bytes that a socket address can hold.
        super().__init__(f"/proc/self/fd/{store}/{NAME}", _Answering)
        # Connecting needs write permission; any uid that sees the volume may send requests.
        os.chmod(NAME, 0o666, dir_fd=store)  # noqa: S103
        self._found = os.stat(NAME, dir_fd=store, follow_symlinks=False)
        self.serve_in_thread("ask")

    def is_at(self, store: int) -> bool:
        """
        Whether the consumers of that store still find this socket.
        """
        found = stat_in(NAME, store)
        return found is not None and os.path.samestat(found, self._found)

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "", 0


class _Answering(RequestHandler):
    server: AskSocket

    def do_GET(self) -> None:
        question = _QUESTION.fullmatch(self.path)
        if question is None:
            self._say(HTTPStatus.NOT_FOUND, error="request /revisions/ID with a full ID")
        elif self.server.has(name := question[1]):
            self._say(HTTPStatus.OK, name=name)
        elif (failure := self.server.ask(name)) is None:
            self._say(HTTPStatus.ACCEPTED, state="on its way")
        else:
            is_gone = failure.reason in GONE
            self._say(
                HTTPStatus.NOT_FOUND if is_gone else HTTPStatus.SERVICE_UNAVAILABLE,
                reason=failure.reason,
                error=failure.message,
            )

    def _say(self, status: HTTPStatus, **facts: Any) -> None:
        self.answer(status, json.dumps(facts).encode() + b"\n")
