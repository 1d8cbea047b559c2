"""
The token that guards every publish.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from sidecar_runtime.fence import CycleAbandoned, Fence
from tests.support.waiting import wait_until


class Publish:
    """A publish in another thread, inside its fence until :meth:`end`."""

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
    """A fence that waits for a publish longer than any test takes."""
    return Fence(in_flight_seconds=30.0)


@pytest.fixture
def publish() -> Iterator[Callable[[Fence], Publish]]:
    """A function that starts a publish inside a fence; the publish ends with the test."""
    with ExitStack() as stack:

        def begin(fence: Fence) -> Publish:
            begun = Publish(fence)
            stack.callback(begun.end)
            return begun

        yield begin


def start(target: Callable[[], object], until: str) -> threading.Thread:
    """Start a thread, and wait until it runs a function with this name."""
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    frames = sys._current_frames
    wait_until(lambda: frames()[thread.ident or 0].f_code.co_name == until, f"it is in {until}")
    return thread


def test_revoke_waits_for_a_publish_in_progress(
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


def test_revoke_does_not_wait_indefinitely_for_a_stuck_publish(
    fence: Fence, publish: Callable[[Fence], Publish]
) -> None:
    in_flight = publish(fence)

    fence.revoke()

    assert not in_flight.has_ended
    in_flight.end()
    with pytest.raises(CycleAbandoned), fence:
        pytest.fail("published after the end")


def test_revoke_ends_a_wait(fence: Fence) -> None:
    ended = threading.Event()

    def sleep() -> None:
        with pytest.raises(CycleAbandoned):
            fence.wait(3_600)
        ended.set()

    start(sleep, until="wait")
    fence.revoke()

    assert ended.wait(10)
