"""
The thread that runs cycles.
"""

import threading
from queue import Empty, SimpleQueue

import pytest

from sidecar_runtime.fence import Fence
from sidecar_runtime.health import Outcome
from sidecar_runtime.loop.worker import Finished, Glances, Worker
from tests.runtime.recording import CHANGED, UNCHANGED, Script, ScriptSession
from tests.support.waiting import wait_until


@pytest.fixture
def reports() -> SimpleQueue[Finished]:
    return SimpleQueue()


def test_runs_cycles_one_by_one_in_one_session_and_thread(
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


def test_reports_an_exception_of_a_cycle_and_continues(reports: SimpleQueue[Finished]) -> None:
    error, end = ValueError("bug"), KeyboardInterrupt()
    worker = Worker(Script(error, end, CHANGED).begin, reports.put)

    for expected in (error, end, CHANGED):
        worker.start_cycle(Fence())
        assert reports.get(timeout=10).end is expected
    worker.retire()


def test_retries_a_session_that_could_not_begin(reports: SimpleQueue[Finished]) -> None:
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


def test_a_retired_worker_ends_after_its_current_cycle(
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


# --- glances


class GlancingSession(ScriptSession):
    """A session that counts its glances and sees a change at the glance with a given number."""

    def __init__(self, script: Script, news_at: int) -> None:
        super().__init__(script)
        self._news_at = news_at
        self.glances = 0
        self.can_wait_for_news = False

    def glance(self) -> bool:
        self.glances += 1
        return self.glances != self._news_at


class Glanced:
    """A worker with a glancing session, and its reports."""

    def __init__(self, *steps: object, count: int, news_at: int = 0, wait: float = 0.001) -> None:
        self.session = GlancingSession(Script(*steps), news_at)  # type: ignore[arg-type]
        self.reports: SimpleQueue[Finished] = SimpleQueue()
        self.told: SimpleQueue[str] = SimpleQueue()
        glances = Glances(
            count, lambda: wait, lambda _: self.told.put("quiet"), lambda: self.told.put("news")
        )
        self.worker = Worker(lambda: self.session, self.reports.put, glances)

    def cycle(self) -> None:
        self.worker.start_cycle(Fence())
        self.reports.get(timeout=10)

    def hear(self, count: int) -> list[str]:
        return [self.told.get(timeout=10) for _ in range(count)]


def test_glances_after_a_success_up_to_the_limit() -> None:
    glanced = Glanced(CHANGED, UNCHANGED, count=3)
    glanced.cycle()

    assert ["quiet"] * 3 == glanced.hear(3)
    with pytest.raises(Empty):
        glanced.told.get(timeout=0.05)
    glanced.cycle()
    assert ["quiet"] * 3 == glanced.hear(3)
    glanced.worker.retire()


def test_a_glance_that_sees_a_change_triggers_a_cycle_and_is_the_last() -> None:
    glanced = Glanced(CHANGED, UNCHANGED, count=9, news_at=2)
    glanced.cycle()

    assert ["quiet", "news"] == glanced.hear(2)
    with pytest.raises(Empty):
        glanced.told.get(timeout=0.05)
    glanced.worker.retire()


@pytest.mark.parametrize(
    "end", [OSError("down"), Outcome("waiting"), Outcome("refused"), Outcome("settling")]
)
def test_does_not_glance_after_a_cycle_without_success(end: object) -> None:
    glanced = Glanced(end, CHANGED, count=1)
    glanced.cycle()

    with pytest.raises(Empty):
        glanced.told.get(timeout=0.05)
    glanced.cycle()
    assert ["quiet"] == glanced.hear(1)
    glanced.worker.retire()


def test_glances_after_a_failure_are_not_recorded_until_one_sees_a_change() -> None:
    glanced = Glanced(OSError("down"), CHANGED, count=9, news_at=3)
    glanced.session.can_wait_for_news = True
    glanced.cycle()

    assert ["news"] == glanced.hear(1)
    assert 3 == glanced.session.glances
    with pytest.raises(Empty):
        glanced.told.get(timeout=0.05)
    glanced.worker.retire()


def test_a_requested_cycle_does_not_wait_for_the_next_glance() -> None:
    glanced = Glanced(CHANGED, CHANGED, count=1, wait=60)
    glanced.cycle()
    glanced.cycle()

    assert 0 == glanced.session.glances
    glanced.worker.retire()
