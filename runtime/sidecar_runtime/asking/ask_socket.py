"""
The Unix socket beside the snapshots: consumers on the same volume request older revisions there.

It is unreachable from the network and for requests forged through another server (SSRF), and it
works through a read-only mount. The answers are names, never paths.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable
from http import HTTPStatus

from sidecar_runtime.errors import SidecarError
from sidecar_runtime.http.listener import Answer, Listener
from sidecar_runtime.printable import json_text
from sidecar_runtime.volume.files import stat_in
from sidecar_runtime.volume.trees import remove_tree

NAME = "ask.sock"
# Reasons that are permanent: a later request gets the same answer.
GONE = {"release_missing", "release_invalid", "commit_missing"}
_QUESTION = re.compile(r"/revisions/([0-9a-f]{40}|(?:sha256-)?[0-9a-f]{64})")


class AskSocket(Listener):
    """
    Answers ``GET /revisions/<id>``: 200 if its snapshot exists, 202 while it is being fetched,
    404 if the source does not contain it, 503 with the reason if it cannot be fetched now.

    Args:
        store: The open folder with the snapshots.
        has: Whether a snapshot of a revision exists.
        ask: As in :class:`~sidecar_runtime.asking.asked.Asked`.

    Raises:
        OSError: The socket cannot be created on that volume, or no thread can be started.
    """

    def __init__(
        self, store: int, has: Callable[[str], bool], ask: Callable[[str], SidecarError | None]
    ) -> None:
        self._has = has
        self._ask = ask
        remove_tree(NAME, store)
        # The real path may be longer than the 107 bytes that a socket address can hold.
        path = f"/proc/self/fd/{store}/{NAME}"
        super().__init__(socket.create_server(path, family=socket.AF_UNIX), self._say)
        # Connecting needs write permission; any uid that sees the volume may send requests.
        os.chmod(NAME, 0o666, dir_fd=store)  # noqa: S103
        self._found = os.stat(NAME, dir_fd=store, follow_symlinks=False)
        self.start()

    def is_at(self, store: int) -> bool:
        """
        Whether the consumers of that store still find this socket.
        """
        found = stat_in(NAME, store)
        return found is not None and os.path.samestat(found, self._found)

    def _say(self, path: str) -> Answer:
        question = _QUESTION.fullmatch(path)
        if question is None:
            return _answer(HTTPStatus.NOT_FOUND, error="request /revisions/ID with a full ID")
        if self._has(name := question[1]):
            return _answer(HTTPStatus.OK, name=name)
        failure = self._ask(name)
        if failure is None:
            return _answer(HTTPStatus.ACCEPTED, state="on its way")
        is_gone = failure.reason in GONE
        status = HTTPStatus.NOT_FOUND if is_gone else HTTPStatus.SERVICE_UNAVAILABLE
        return _answer(status, reason=failure.reason, error=failure.message)


def _answer(status: HTTPStatus, **facts: str) -> Answer:
    return Answer(status, f"{json_text(facts)}\n".encode())
