"""
The thread that runs cycles.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue

from sidecar_runtime.fence import Fence
from sidecar_runtime.health import Outcome
from sidecar_runtime.sidecar import Cycle


@dataclass(frozen=True, slots=True)
class Finished:
    fence: Fence
    end: Outcome | BaseException


class Worker:
    """
    One daemon thread that runs cycles, one at a time, as they are asked for.
    """

    def __init__(self, begin: Callable[[], Cycle], report: Callable[[Finished], None]) -> None:
        self._begin = begin
        self._report = report
        self._requests: SimpleQueue[Fence] = SimpleQueue()
        self.fence: Fence | None = None
        self.thread = threading.Thread(target=self._work, name="cycle", daemon=True)
        self.thread.start()

    def start_cycle(self, fence: Fence) -> None:
        self.fence = fence
        self._requests.put(fence)

    def _work(self) -> None:
        cycle: Cycle | None = None
        while True:
            fence = self._requests.get()
            end: Outcome | BaseException
            try:
                if cycle is None:
                    cycle = self._begin()
                end = cycle(fence)
            except BaseException as error:  # noqa: BLE001 - the main thread decides
                end = error
            self._report(Finished(fence, end))
