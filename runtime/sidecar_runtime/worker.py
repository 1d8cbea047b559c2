"""
The thread that runs cycles.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue

from sidecar_runtime.fence import Fence
from sidecar_runtime.health import Outcome
from sidecar_runtime.sidecar import Session


@dataclass(frozen=True, slots=True)
class Finished:
    fence: Fence
    end: Outcome | BaseException


class Worker:
    """
    One daemon thread that runs cycles, one at a time, as they are asked for.
    """

    def __init__(self, begin: Callable[[], Session], report: Callable[[Finished], None]) -> None:
        self._begin = begin
        self._report = report
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
        is_settled = False
        while (fence := self._requests.get()) is not None:
            end: Outcome | BaseException
            try:
                if session is None:
                    session = self._begin()
                end = session.cycle(fence)
            except BaseException as error:  # noqa: BLE001 - the main thread decides
                end = error
            self._report(Finished(fence, end))
            if isinstance(end, BaseException):
                # Its traceback holds what the cycle held, downloads too, in reference cycles.
                del end
                gc.collect()
            elif not is_settled:
                # What there is now stays: a full collection need not look at it ever again
                # (50 ms where s3-sync knows 10,000 files).
                is_settled = True
                gc.freeze()
        if session is not None:
            session.close()
