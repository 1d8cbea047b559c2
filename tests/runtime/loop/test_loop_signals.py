"""
The loop and signals: SIGTERM and SIGINT end it, SIGHUP triggers a cycle.
"""

import signal
import threading
from typing import Any

import pytest

from sidecar_runtime.errors import EXIT_DONE
from sidecar_runtime.fence import CycleAbandoned, Fence
from sidecar_runtime.health import Outcome
from sidecar_runtime.loop import Loop
from tests.runtime.loop.looping import (
    DENIED,
    PATIENCE_SECONDS,
    failing_for,
    hear,
    run,
    send,
    when_idle,
)
from tests.runtime.recording import CHANGED, UNCHANGED, Log
from tests.support.waiting import wait_until


def test_sigterm_ends_the_loop_and_the_running_cycle_cannot_publish(log: Log) -> None:
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


@pytest.mark.parametrize("step", [CHANGED, DENIED], ids=["idle", "after a failure"])
def test_sighup_triggers_a_cycle_while_idle_or_in_backoff(log: Log, step: Any) -> None:
    one = run(step, pace=failing_for(600))
    thread = when_idle(one, 1, lambda: send(signal.SIGHUP))

    one.until_stopped()
    thread.join()

    assert one.sidecar.cycles == 2


def test_wake_triggers_an_ordinary_cycle_during_a_backoff(log: Log) -> None:
    asked: list[bool] = []

    def cycle(fence: Fence) -> Outcome:
        asked.append(fence.is_asked_for)
        return CHANGED

    one = run(DENIED, cycle, pace=failing_for(600))
    thread = when_idle(one, 1, lambda: Loop.wake(one.loop))

    one.until(2)
    thread.join()

    assert [False] == asked


def test_sighup_during_a_cycle_triggers_one_more_after_it(log: Log) -> None:
    """Otherwise a change after the listing of the running cycle would wait for an interval."""

    def cycle(_: Fence) -> Outcome:
        for _turn in range(3):
            hear(log, signal.SIGHUP)
        return CHANGED

    one = run(cycle, UNCHANGED)

    def look() -> None:
        wait_until(lambda: one.health.next_cycle_in_seconds, "the next cycle is set")
        send(signal.SIGTERM)

    one.until(2, look)

    assert ["changed", "unchanged"] == one.results()


def test_the_loop_misses_no_signal(log: Log) -> None:
    """A signal that arrives right before the main thread sleeps must wake it."""

    def cycle(_: Fence) -> Outcome:
        for _turn in range(150):
            hear(log, signal.SIGHUP)
        return CHANGED

    one = run(cycle)

    one.until_stopped()

    assert 150 == len(log.events("signal_received")) - 1  # the script sends SIGTERM
