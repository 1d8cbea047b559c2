"""
The thread that runs cycles.
"""

import threading
from queue import SimpleQueue

import pytest

from sidecar_runtime.fence import Fence
from sidecar_runtime.health import Outcome
from sidecar_runtime.worker import Finished, Worker
from tests.runtime.recording import CHANGED, UNCHANGED, Script
from tests.support.waiting import wait_until


@pytest.fixture
def reports() -> SimpleQueue[Finished]:
    return SimpleQueue()


def test_runs_one_cycle_after_another_in_one_session_of_its_own_thread(
    reports: SimpleQueue[Finished],
) -> None:
    threads: list[str] = []

    def cycle(_: Fence) -> Outcome:
        threads.append(threading.current_thread().name)
        return CHANGED

    script = Script(cycle, UNCHANGED)
    worker = Worker(script.begin, reports.put)
    fences = [Fence(), Fence()]
    for fence in fences:
        worker.start_cycle(fence)
    ends = [reports.get(timeout=10) for _ in fences]
    worker.retire()

    assert [Finished(fences[0], CHANGED), Finished(fences[1], UNCHANGED)] == ends
    assert threads == ["cycle"]
    assert len(script.sessions) == 1


def test_reports_what_a_cycle_raises_and_goes_on(reports: SimpleQueue[Finished]) -> None:
    error, end = ValueError("bug"), KeyboardInterrupt()
    worker = Worker(Script(error, end, CHANGED).begin, reports.put)

    for expected in (error, end, CHANGED):
        worker.start_cycle(Fence())
        assert reports.get(timeout=10).end is expected
    worker.retire()


def test_a_session_that_cannot_begin_is_tried_again(reports: SimpleQueue[Finished]) -> None:
    script = Script(CHANGED)
    begins = iter([OSError("no more files"), None])

    def begin() -> object:
        if error := next(begins):
            raise error
        return script.begin()

    worker = Worker(begin, reports.put)  # type: ignore[arg-type]
    worker.start_cycle(Fence())
    assert isinstance(reports.get(timeout=10).end, OSError)
    worker.start_cycle(Fence())
    assert reports.get(timeout=10).end is CHANGED
    worker.retire()


def test_a_retired_one_ends_its_thread_and_closes_its_session_when_it_comes_back(
    reports: SimpleQueue[Finished],
) -> None:
    released = threading.Event()
    threads: list[threading.Thread] = []

    def late(_: Fence) -> Outcome:
        threads.append(threading.current_thread())
        assert released.wait(10)
        return CHANGED

    script = Script(late)
    worker = Worker(script.begin, reports.put)
    worker.start_cycle(Fence())
    wait_until(lambda: threads, "the cycle runs")
    worker.retire()
    assert not script.sessions[0].is_closed

    released.set()
    threads[0].join(10)

    assert reports.get(timeout=10).end is CHANGED
    assert script.sessions[0].is_closed
    assert not threads[0].is_alive()
