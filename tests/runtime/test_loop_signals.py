"""
The loop and signals: an end in time, a cycle now.
"""

import signal
import threading
import time

import pytest

from sidecar_runtime import backoff
from sidecar_runtime.errors import EXIT_DONE
from sidecar_runtime.fence import CycleAbandoned, Fence
from sidecar_runtime.health import Outcome
from sidecar_runtime.loop import Loop
from tests.runtime.looping import DENIED, PATIENCE_SECONDS, hear, run, send, when_idle
from tests.runtime.recording import CHANGED, UNCHANGED, Log
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("quick")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_success_while_idle(log: Log, number: signal.Signals) -> None:
    one = run(CHANGED)
    thread = when_idle(one, 1, lambda: send(number))

    assert one() == EXIT_DONE
    thread.join()

    assert [number.name] == [event["signal"] for event in log.events("signal_received")]
    assert one.sidecar.cycles == 1


def test_a_signal_ends_it_during_a_cycle_which_can_publish_nothing_more(log: Log) -> None:
    came: list[str] = []
    is_over = threading.Event()

    def cycle(fence: Fence) -> Outcome:
        revoked = threading.Event()
        fence.on_revoke(revoked.set)
        send(signal.SIGTERM)
        assert revoked.wait(PATIENCE_SECONDS)
        try:
            with fence:
                came.append("published")
        except CycleAbandoned:
            came.append("abandoned")
        is_over.set()
        return CHANGED

    one = run(cycle)

    assert one() == EXIT_DONE
    assert is_over.wait(PATIENCE_SECONDS)
    assert came == ["abandoned"]
    assert one.results() == []


def test_the_handlers_of_before_come_back(log: Log) -> None:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]

    run(CHANGED, one_shot=True)()
    run(DENIED, interval_seconds=0.1).until_stopped()

    assert before == [signal.getsignal(number) for number in numbers]


def test_sighup_while_idle_is_a_cycle_now(log: Log) -> None:
    one = run(CHANGED)
    thread = when_idle(one, 1, lambda: send(signal.SIGHUP))
    began = time.monotonic()

    one.until_stopped()
    thread.join()

    assert time.monotonic() - began < 5
    assert one.sidecar.cycles == 2


def test_sighup_after_a_failure_shortens_the_wait(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backoff, "FLOOR_SECONDS", 600.0)
    one = run(DENIED)
    thread = when_idle(one, 1, lambda: send(signal.SIGHUP))
    began = time.monotonic()

    one.until_stopped()
    thread.join()

    assert time.monotonic() - began < 5


def test_a_cycle_knows_that_a_person_asked_for_it(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backoff, "FLOOR_SECONDS", 0.5)
    asked: list[bool] = []

    def cycle(fence: Fence) -> Outcome:
        asked.append(fence.is_asked_for)
        if len(asked) == 1:
            hear(log, signal.SIGHUP)
        raise DENIED

    run(cycle, cycle, cycle).until_stopped()

    assert [False, True, False] == asked


def test_a_sidecar_that_wakes_the_loop_shortens_the_wait(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Nobody asked for that cycle: it is as every other.
    """
    monkeypatch.setattr(backoff, "FLOOR_SECONDS", 600.0)
    asked: list[bool] = []

    def cycle(fence: Fence) -> Outcome:
        asked.append(fence.is_asked_for)
        return CHANGED

    one = run(DENIED, cycle)
    thread = when_idle(one, 1, lambda: Loop.wake(one.loop))
    second = when_idle(one, 2, lambda: send(signal.SIGTERM))
    began = time.monotonic()

    assert one() == EXIT_DONE
    thread.join()
    second.join()

    assert time.monotonic() - began < 5
    assert [False] == asked


def test_sighup_during_a_cycle_is_one_more_cycle_after_it(log: Log) -> None:
    """
    What changed after the listing of the running cycle would else be seen an interval later.
    """

    def cycle(_: Fence) -> Outcome:
        for _ in range(3):
            hear(log, signal.SIGHUP)
        return CHANGED

    one = run(cycle, UNCHANGED)

    def look() -> None:
        wait_until(lambda: (one.health.next_cycle_in_seconds or 0) > 1, "the next cycle is set")
        send(signal.SIGTERM)

    thread = when_idle(one, 2, look)
    assert one() == EXIT_DONE
    thread.join()

    assert ["changed", "unchanged"] == one.results()


def test_sighup_during_a_cycle_that_fails_is_one_more_cycle_too(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backoff, "FLOOR_SECONDS", 600.0)

    def cycle(_: Fence) -> Outcome:
        hear(log, signal.SIGHUP)
        raise DENIED

    one = run(cycle)
    began = time.monotonic()

    one.until_stopped()

    assert time.monotonic() - began < 5
    assert one.sidecar.cycles == 2


def test_no_signal_is_slept_through(log: Log) -> None:
    """
    A signal that arrives right before the main thread goes to sleep must wake it.
    """

    def cycle(_: Fence) -> Outcome:
        for _ in range(150):
            began = time.monotonic()
            hear(log, signal.SIGHUP)
            slowest.append(time.monotonic() - began)
        return CHANGED

    slowest: list[float] = []
    one = run(cycle)

    one.until_stopped()

    assert len(slowest) == 150
    assert max(slowest) < 1
