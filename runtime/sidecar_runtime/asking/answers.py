"""
Answers requests for revisions: the Unix socket beside the snapshots, and the revisions to fetch.

The socket is unreachable from the network and for requests forged through another server (SSRF),
and it works through a read-only mount. The answers are names, never paths.
"""

import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus

from sidecar_runtime.asking.asked import Asked, AskMetrics
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import CycleAbandoned, Fence
from sidecar_runtime.http.listener import Answer, Listener
from sidecar_runtime.logs import get_logger
from sidecar_runtime.printable import json_text
from sidecar_runtime.volume.files import stat_in
from sidecar_runtime.volume.trees import remove_tree

NAME = "ask.sock"
# After this long a cycle fetches no further revision, because the next publish waits for it.
SECONDS = 5.0
TOO_LONG = "the cycle timed out while it fetched this revision"
# Reasons that are permanent: a later request gets the same answer.
GONE = {"release_missing", "release_invalid", "commit_missing"}
_QUESTION = re.compile(r"/revisions/(sha256-[0-9a-f]{64})")

log = get_logger("asked")


class Answers:
    """
    Answers the consumers of one volume, cycle by cycle; belongs to one thread.

    ``GET /revisions/<id>``: 200 if its snapshot exists, 202 while it is being fetched, 404 if the
    source does not contain it, 503 with the reason if it cannot be fetched now.

    Args:
        path: The volume, for messages.
    """

    def __init__(self, path: str, metrics: AskMetrics, asked: Asked) -> None:
        self._path = path
        self._metrics = metrics
        self._asked = asked
        self._listener: Listener | None = None
        self._socket: os.stat_result | None = None
        self._told = ""
        """The failure of the socket that is already in the log."""

    def follow(self, store: int, has: Callable[[str], bool], fence: Fence) -> None:
        """
        Serve the socket in an open store from now on, unless it is served already.

        Args:
            has: Whether a snapshot of a revision exists; called from any thread.

        Raises:
            CycleAbandoned: The fence was revoked; another thread serves the socket.
        """
        with fence:
            found = stat_in(NAME, store)
            if found and self._socket and os.path.samestat(found, self._socket):
                return  # the consumers of that store find it
            self.close()
            try:
                self._listener = self._listen(store, has)
                self._socket, self._told = stat_in(NAME, store), ""
            except (OSError, RuntimeError) as error:  # each cycle tries again
                self._tell(getattr(error, "strerror", None) or str(error))

    def _listen(self, store: int, has: Callable[[str], bool]) -> Listener:
        """
        Raises:
            OSError: The socket cannot be created on that volume.
            RuntimeError: No thread can be started.
        """
        remove_tree(NAME, store)
        # The real path may be longer than the 107 bytes that a socket address can hold.
        listening = socket.create_server(f"/proc/self/fd/{store}/{NAME}", family=socket.AF_UNIX)
        # Connecting needs write permission; any uid that sees the volume may send requests.
        os.chmod(NAME, 0o666, dir_fd=store)  # noqa: S103
        listener = Listener(listening, partial(self._answer, has))
        listener.start()
        return listener

    def _tell(self, failure: str) -> None:
        if failure == self._told:
            return
        self._told = failure
        log.warning(
            "ask_socket_unavailable",
            error=failure,
            advice=f"Consumers cannot request older versions on {self._path}: only the versions "
            "that are kept there are available. Some file systems do not support Unix sockets.",
        )

    def _answer(self, has: Callable[[str], bool], path: str) -> Answer:
        question = _QUESTION.fullmatch(path)
        if question is None:
            return _say(HTTPStatus.NOT_FOUND, error="request /revisions/ID with a full ID")
        if has(name := question[1]):
            return _say(HTTPStatus.OK, name=name)
        failure = self._asked.ask(name)
        if failure is None:
            return _say(HTTPStatus.ACCEPTED, state="on its way")
        is_gone = failure.reason in GONE
        status = HTTPStatus.NOT_FOUND if is_gone else HTTPStatus.SERVICE_UNAVAILABLE
        return _say(status, reason=failure.reason, error=failure.message)

    def close(self) -> None:
        """
        Close the socket; snapshots that were requested stay.
        """
        if self._listener is not None:
            self._listener.close()
        self._listener = self._socket = None

    def due(self, fence: Fence) -> Iterator[str]:
        """
        Yield requested revisions while the cycle has time; the next cycle continues.

        Raises:
            CycleAbandoned: The fence was revoked.
        """
        until = time.monotonic() + SECONDS
        for revision in self._asked.waiting():
            fence.wait(0)
            if time.monotonic() > until:
                self._asked.wake()
                return
            yield revision

    @contextmanager
    def answering(self, revision: str) -> Iterator[None]:
        """
        Fetch a revision in this context: a failure becomes the answer to the consumer.
        """
        failure: SidecarError | None = None
        try:
            yield
        except CycleAbandoned:  # otherwise the next cycle would start with it and time out again
            self._asked.settle(revision, SidecarError("cycle_timeout", TOO_LONG))
            raise
        except SidecarError as error:
            failure = error
            log.warning("requested_revision_unavailable", revision=revision, **error.log_fields())
        self._asked.settle(revision, failure)
        self._metrics.requested("error" if failure else "success").inc()

    def note_outage(self, error: SidecarError | None) -> None:
        """
        Note how the cycle ended: while the source fails, requests wait for its backoff.
        """
        self._asked.outage = error


def _say(status: HTTPStatus, **facts: str) -> Answer:
    return Answer(status, f"{json_text(facts)}\n".encode())
