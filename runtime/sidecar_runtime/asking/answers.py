"""
The answers of one process: the socket beside its snapshots, and what its cycles are to bring.
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

# A cycle brings no more after this long: what is published next waits for it.
SECONDS = 5.0
TOO_LONG = "it took longer than a cycle may take"

log = get_logger("asked")


class Answers:
    """
    Answers consumers of one volume, cycle for cycle; belongs to one thread.

    Args:
        path: The volume, for people.
    """

    def __init__(self, path: str, metrics: AskMetrics, asked: Asked) -> None:
        self._path = path
        self._metrics = metrics
        self._asked = asked
        self._socket: AskSocket | None = None
        self._reported: tuple[int, int, int | None] | None = None
        """The store that can have no socket, and why, as the log has it already."""

    def follow(self, store: int, has: Callable[[str], bool], fence: Fence) -> None:
        """
        Answer in an open store from now on, unless that is so already.

        Args:
            has: Whether there is a snapshot of a revision; from any thread.

        Raises:
            CycleAbandoned: The fence was revoked; another thread answers there.
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
        Report once that a store can have no socket, though each cycle tries again.
        """
        found = os.fstat(store)
        failure = found.st_dev, found.st_ino, error.errno
        if failure == self._reported:
            return
        self._reported = failure
        log.warning(
            "ask_socket_unavailable",
            error=error.strerror or str(error),
            advice=f"Nobody can ask for older versions on {self._path}: DAG versions end "
            "with what is kept there. Some file systems have no sockets.",
        )

    def close(self) -> None:
        """
        Answer no more; what was brought stays.
        """
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def due(self, fence: Fence) -> Iterator[str]:
        """
        Yield what is waited for, as much as a cycle has time for; the rest comes with the next.

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
        Bring a revision within this: a failure is the answer to whoever waits.
        """
        failure: SidecarError | None = None
        try:
            yield
        except CycleAbandoned:  # else the next cycle would begin with it, and end like this one
            self._asked.settle(revision, SidecarError("cycle_timeout", TOO_LONG))
            raise
        except SidecarError as error:
            failure = error
            log.warning(
                "revision_not_brought",
                revision=revision,
                reason=error.reason,
                error=error.message,
                advice=error.advice,
            )
        self._asked.settle(revision, failure)
        self._metrics.brought("failed" if failure else "brought").inc()

    def note_outage(self, error: SidecarError | None) -> None:
        """
        Note how the cycle ended: while the source fails, its backoff decides when it is asked.
        """
        self._asked.outage = error
