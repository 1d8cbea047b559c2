"""
The thread that runs cycles.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from sidecar_runtime.fence import Fence
from sidecar_runtime.health import Outcome
from sidecar_runtime.sidecar import Glancing, Session


@dataclass(frozen=True, slots=True)
class Finished:
    fence: Fence
    end: Outcome | BaseException


@dataclass(frozen=True, slots=True)
class Glances:
    """
    What a thread does after a successful cycle, until the next one is asked for.

    Args:
        count: So many glances at most.
        wait_seconds: Draws the wait before each.
        note: Called after one that saw nothing new, with the seconds that it took.
        wake: Called after one that did, and was the last.
    """

    count: int
    wait_seconds: Callable[[], float]
    note: Callable[[float], object]
    wake: Callable[[], object]


class Worker:
    """
    One daemon thread that runs cycles, one at a time, as they are asked for.
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
        Run a cycle under this fence; its end is reported.
        """
        self.fence = fence
        self._requests.put(fence)

    def retire(self) -> None:
        """
        End the thread as soon as it comes back from what it is doing.
        """
        self._requests.put(None)

    def _work(self) -> None:
        session: Session | None = None
        end: Outcome | BaseException | None = None
        while (fence := self._next(session, end)) is not None:
            try:
                if session is None:
                    session = self._begin()
                end = session.cycle(fence)
            except BaseException as error:  # noqa: BLE001 - the main thread decides
                end = error
            self._report(Finished(fence, end))
            if isinstance(end, BaseException):
                # Its traceback holds what the cycle held, downloads too, in reference cycles.
                end = None
                gc.collect()
        if session is not None:
            session.close()

    def _next(self, session: Session | None, end: Outcome | BaseException | None) -> Fence | None:
        """
        Return the next request; while it does not come, glance.
        """
        glances = self._glances
        if (
            glances is not None
            and isinstance(end, Outcome)
            and end.is_success
            and isinstance(session, Glancing)
        ):
            for _ in range(glances.count):
                try:
                    return self._requests.get(timeout=glances.wait_seconds())
                except Empty:
                    pass
                began = time.monotonic()
                if not session.glance():
                    glances.wake()
                    break
                glances.note(time.monotonic() - began)
        return self._requests.get()
