"""
The token that guards every publish.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from sidecar_runtime.fence import CycleAbandoned, Fence
from tests.support.waiting import wait_until


class Publish:
    """
    A publish in another thread that stays inside its fence until it is told to end.
    """

    def __init__(self, fence: Fence) -> None:
        self._fence = fence
        self.is_inside = threading.Event()
        self.may_end = threading.Event()
        self.has_ended = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self.is_inside.wait(10)

    def _run(self) -> None:
        with self._fence:
            self.is_inside.set()
            self.may_end.wait(10)
            self.has_ended = True

    def end(self) -> None:
        self.may_end.set()
        self._thread.join(10)


@pytest.fixture
def patient() -> Fence:
    """
    Provide a fence that waits for a publish longer than any test takes.
    """
    return Fence(in_flight_seconds=30.0)


@pytest.fixture
def publish() -> Iterator[Callable[[Fence], Publish]]:
    """
    Start a publish inside a fence; it ends with the test.
    """
    with ExitStack() as stack:

        def begin(fence: Fence) -> Publish:
            begun = Publish(fence)
            stack.callback(begun.end)
            return begun

        yield begin


def test_a_publish_that_fails_leaves_the_fence_open_for_the_next(fence: Fence) -> None:
    with pytest.raises(OSError, match="full"), fence:
        raise OSError("full")

    with fence:
        pass


def test_a_publish_in_flight_is_waited_for(
    patient: Fence, publish: Callable[[Fence], Publish]
) -> None:
    in_flight = publish(patient)
    seen: list[bool] = []
    revoking = threading.Thread(target=lambda: (patient.revoke(), seen.append(in_flight.has_ended)))
    revoking.start()
    wait_until(lambda: patient.is_revoked, "the fence is revoked")
    assert revoking.is_alive()

    in_flight.end()
    revoking.join(10)

    assert seen == [True]


def test_a_publish_that_is_stuck_is_not_waited_for(
    fence: Fence, publish: Callable[[Fence], Publish]
) -> None:
    in_flight = publish(fence)

    fence.revoke()

    assert not in_flight.has_ended
    in_flight.end()
    with pytest.raises(CycleAbandoned), fence:
        pytest.fail("published after the end")


def test_a_publish_that_waited_for_its_turn_does_not_begin_after_the_revocation(
    fence: Fence, publish: Callable[[Fence], Publish]
) -> None:
    in_flight = publish(fence)
    came: list[str] = []

    def second() -> None:
        try:
            with fence:
                came.append("published")
        except CycleAbandoned:
            came.append("abandoned")

    thread = threading.Thread(target=second)
    thread.start()
    fence.revoke()
    in_flight.end()
    thread.join(10)

    assert came == ["abandoned"]


def test_tells_before_it_waits(patient: Fence, publish: Callable[[Fence], Publish]) -> None:
    """
    The callback ends a publish that hangs on the network or on a child.
    """
    in_flight = publish(patient)
    patient.on_revoke(in_flight.may_end.set)

    patient.revoke()

    assert in_flight.has_ended


def test_tells_at_once_who_asks_too_late(fence: Fence) -> None:
    told: list[str] = []
    fence.revoke()

    fence.on_revoke(lambda: told.append("late"))

    assert told == ["late"]


def test_tells_those_who_asked_and_not_who_is_forgotten(fence: Fence) -> None:
    told: list[str] = []

    def first() -> None:
        told.append("first")

    fence.on_revoke(first)
    fence.on_revoke(lambda: told.append("second"))
    fence.on_revoke(lambda: told.append("third"))
    fence.forget(first)
    assert told == []
    fence.revoke()
    assert told == ["second", "third"]


def test_revoking_ends_a_sleep(fence: Fence) -> None:
    ended = threading.Event()

    def sleep() -> None:
        with pytest.raises(CycleAbandoned):
            fence.wait(3_600)
        ended.set()

    threading.Thread(target=sleep, daemon=True).start()
    fence.revoke()

    assert ended.wait(10)


def test_a_sleep_ends_by_itself(fence: Fence) -> None:
    fence.wait(0.001)

    assert not fence.is_revoked
