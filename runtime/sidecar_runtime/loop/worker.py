"""
The thread that runs cycles.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import NamedTuple

from sidecar_runtime.fence import Fence
from sidecar_runtime.health import Outcome
from sidecar_runtime.sidecar import Glancing, Session


class Finished(NamedTuple):
    fence: Fence
    end: Outcome | BaseException


class Glances(NamedTuple):
    """
    The glances of a thread between two cycles.

    Args:
        limit: Maximum number of glances.
        wait_seconds: Draws the wait before each glance.
        note: Called with the duration in seconds after a glance that found no change since a
            success.
        wake: Called after a glance that found a change; no further glance follows.
    """

    limit: int
    wait_seconds: Callable[[], float]
    note: Callable[[float], object]
    wake: Callable[[], object]


class Worker:
    """
    A daemon thread that runs the requested cycles, one at a time.
    """

    def __init__(
        self,
        begin: Callable[[], Session],
        report: Callable[[Finished], None],
        glances: Glances | None = None,
    ) -> None:
        self._begin = begin
        self._report = report
        self._glances = glances
        self._requests: SimpleQueue[Fence | None] = SimpleQueue()
        self.fence: Fence | None = None
        threading.Thread(target=self._work, name="cycle", daemon=True).start()

    def start_cycle(self, fence: Fence) -> None:
        """
        Run a cycle under this fence; its end is passed to `report`.
        """
        self.fence = fence
        self._requests.put(fence)

    def retire(self) -> None:
        """
        End the thread as soon as it returns from its current cycle.
        """
        self._requests.put(None)

    def _work(self) -> None:
        session: Session | None = None
        outcome: Outcome | None = None
        while (fence := self._next(session, outcome)) is not None:
            end: Outcome | BaseException
            try:
                if session is None:
                    session = self._begin()
                end = outcome = session.cycle(fence)
            except BaseException as error:  # noqa: BLE001 - the main thread decides
                end, outcome = error, None
            self._report(Finished(fence, end))
            if outcome is None:
                # The traceback keeps the cycle's objects, downloads too, alive in reference cycles.
                del end
                gc.collect()
        if session is not None:
            session.close()

    def _next(self, session: Session | None, outcome: Outcome | None) -> Fence | None:
        """
        Return the next request; glance until it arrives.

        Args:
            outcome: The outcome of the last cycle; None if it failed.
        """
        glances = self._glances
        is_success = outcome is not None and outcome.is_success
        if (
            glances is not None
            and isinstance(session, Glancing)
            and (is_success or (outcome is None and session.can_wait_for_news))
        ):
            for _ in range(glances.limit):
                try:
                    return self._requests.get(timeout=glances.wait_seconds())
                except Empty:
                    pass
                began = time.monotonic()
                if not session.glance():
                    glances.wake()
                    break
                if is_success:
                    glances.note(time.monotonic() - began)
        return self._requests.get()
