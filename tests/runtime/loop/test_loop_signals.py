"""
The loop and signals: an end in time, and an immediate cycle.
"""

import signal
import threading
from typing import Any

import pytest

from sidecar_runtime.errors import EXIT_DONE
from sidecar_runtime.fence import CycleAbandoned, Fence
from sidecar_runtime.health import Outcome
from sidecar_runtime.loop.loop import Loop
from tests.runtime.looping import DENIED, PATIENCE_SECONDS, failing_for, hear, run, send, when_idle
from tests.runtime.recording import CHANGED, UNCHANGED, Log
from tests.support.waiting import wait_until


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_success_while_idle(log: Log, number: signal.Signals) -> None:
    one = run(CHANGED)

    one.until(1, lambda: send(number))

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


def test_the_earlier_handlers_come_back(log: Log) -> None:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]

    run(CHANGED, one_shot=True)()
    run(DENIED, interval_seconds=0.1).until_stopped()

    assert before == [signal.getsignal(number) for number in numbers]


@pytest.mark.parametrize("step", [CHANGED, DENIED], ids=["idle", "after a failure"])
def test_sighup_is_a_cycle_now(log: Log, step: Any) -> None:
    one = run(step, pace=failing_for(600))
    thread = when_idle(one, 1, lambda: send(signal.SIGHUP))

    one.until_stopped()
    thread.join()

    assert one.sidecar.cycles == 2


def test_a_cycle_knows_that_a_person_asked_for_it(log: Log) -> None:
    asked: list[bool] = []

    def cycle(fence: Fence) -> Outcome:
        asked.append(fence.is_asked_for)
        if len(asked) == 1:
            hear(log, signal.SIGHUP)
        raise DENIED

    run(cycle, cycle, cycle, pace=failing_for(0.5)).until_stopped()

    assert [False, True, False] == asked


def test_a_sidecar_that_wakes_the_loop_shortens_the_wait(log: Log) -> None:
    """
    SIGHUP did not trigger that cycle: it is an ordinary one.
    """
    asked: list[bool] = []

    def cycle(fence: Fence) -> Outcome:
        asked.append(fence.is_asked_for)
        return CHANGED

    one = run(DENIED, cycle, pace=failing_for(600))
    thread = when_idle(one, 1, lambda: Loop.wake(one.loop))

    one.until(2)
    thread.join()

    assert [False] == asked


def test_sighup_during_a_cycle_is_one_more_cycle_after_it(log: Log) -> None:
    """
    Changes after the listing of the running cycle would otherwise be seen an interval later.
    """

    def cycle(_: Fence) -> Outcome:
        for _turn in range(3):
            hear(log, signal.SIGHUP)
        return CHANGED

    one = run(cycle, UNCHANGED)

    def look() -> None:
        wait_until(lambda: (one.health.next_cycle_in_seconds or 0) > 1, "the next cycle is set")
        send(signal.SIGTERM)

    one.until(2, look)

    assert ["changed", "unchanged"] == one.results()


def test_sighup_during_a_cycle_that_fails_is_one_more_cycle_too(log: Log) -> None:

    def cycle(_: Fence) -> Outcome:
        hear(log, signal.SIGHUP)
        raise DENIED

    one = run(cycle, pace=failing_for(600))

    one.until_stopped()

    assert one.sidecar.cycles == 2
    told = [event["event"] for event in log.events()]
    assert ["signal_received", "cycle_failed", "cycle_started"] == told


def test_no_signal_is_slept_through(log: Log) -> None:
    """
    A signal that arrives right before the main thread sleeps must wake it.
    """

    def cycle(_: Fence) -> Outcome:
        for _turn in range(150):
            hear(log, signal.SIGHUP)
        return CHANGED

    one = run(cycle)

    one.until_stopped()

    assert 150 == len(log.events("signal_received"))
