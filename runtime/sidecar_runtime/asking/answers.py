"""
Answers requests for revisions: the socket beside the snapshots, and the revisions to fetch.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sidecar_runtime.asking.ask_socket import AskSocket
from sidecar_runtime.asking.asked import Asked, AskMetrics
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import CycleAbandoned, Fence
from sidecar_runtime.logs import get_logger

# After this long a cycle fetches no further revision, because the next publish waits for it.
SECONDS = 5.0
TOO_LONG = "the cycle timed out while it fetched this revision"

log = get_logger("asked")


class Answers:
    """
    Answers the consumers of one volume, cycle by cycle; belongs to one thread.

    Args:
        path: The volume, for messages.
    """

    def __init__(self, path: str, metrics: AskMetrics, asked: Asked) -> None:
        self._path = path
        self._metrics = metrics
        self._asked = asked
        self._socket: AskSocket | None = None
        self._reported: tuple[int, int, int | None] | None = None
        """Device, inode and errno of the socket failure that is already in the log."""

    def follow(self, store: int, has: Callable[[str], bool], fence: Fence) -> None:
        """
        Serve the socket in an open store from now on, unless it is served already.

        Args:
            has: Whether a snapshot of a revision exists; called from any thread.

        Raises:
            CycleAbandoned: The fence was revoked; another thread serves the socket.
        """
        with fence:
            if self._socket is not None and self._socket.is_at(store):
                return
            self.close()
            try:
                self._socket = AskSocket(store, has, self._asked.ask)
                self._reported = None
            except OSError as error:
                self._report(store, error)

    def _report(self, store: int, error: OSError) -> None:
        """
        Log once that the socket cannot be created in a store; each cycle tries again.
        """
        found = os.fstat(store)
        failure = found.st_dev, found.st_ino, error.errno
        if failure == self._reported:
            return
        self._reported = failure
        log.warning(
            "ask_socket_unavailable",
            error=error.strerror or str(error),
            advice=f"Consumers cannot request older versions on {self._path}: only the versions "
            "that are kept there are available. Some file systems do not support Unix sockets.",
        )

    def close(self) -> None:
        """
        Close the socket; snapshots that were requested stay.
        """
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def due(self, fence: Fence) -> Iterator[str]:
        """
        Yield requested revisions while the cycle has time; the next cycle continues.

        Raises:
            CycleAbandoned: The fence was revoked.
        """
        until = time.monotonic() + SECONDS
        for revision in self._asked.waiting():
            if fence.is_revoked:
                raise CycleAbandoned
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
            log.warning(
                "requested_revision_unavailable",
                revision=revision,
                reason=error.reason,
                error=error.message,
                advice=error.advice,
            )
        self._asked.settle(revision, failure)
        self._metrics.requested("error" if failure else "success").inc()

    def note_outage(self, error: SidecarError | None) -> None:
        """
        Note how the cycle ended: while the source fails, requests wait for its backoff.
        """
        self._asked.outage = error
