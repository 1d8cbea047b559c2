"""
The queue on which the main thread waits.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from sidecar_runtime.loop import Events, Idle

# A wait that missed its event exceeds the time limit of the test.
LONG_SECONDS = 3600.0


@pytest.fixture
def events() -> Iterator[Events]:
    events = Events()
    with events.of_signals():
        yield events


def in_seconds(seconds: float) -> float:
    return time.monotonic() + seconds


def test_returns_more_events_than_the_socket_holds_in_their_order(events: Events) -> None:
    sent = [Idle(float(number)) for number in range(20_000)]
    for event in sent:
        events.put(event)

    assert sent == [events.get(0) for _ in sent]
    assert events.get(0) is None


def test_a_stale_wakeup_does_not_shorten_the_wait(events: Events) -> None:
    events.put("wake")
    assert events.get(in_seconds(1)) == "wake"
    until = in_seconds(0.1)

    assert events.get(until) is None
    assert time.monotonic() >= until


def test_an_event_from_another_thread_ends_the_wait(events: Events) -> None:
    threading.Timer(0.02, events.put, ["wake"]).start()

    assert events.get(float("inf")) == "wake"


def test_a_signal_ends_the_wait_whenever_it_arrives(events: Events) -> None:
    """
    A signal between the last check of the queue and the wait must end the wait.

    The sender runs when the main thread releases the interpreter, right before it waits.
    """
    number = 0
    is_over = threading.Event()

    def send() -> None:
        sent = 0
        while not is_over.is_set():
            if number > sent:
                sent = number
                os.kill(os.getpid(), signal.SIGHUP)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        for turn in range(1, 201):
            number = turn
            assert events.get(in_seconds(LONG_SECONDS)) == signal.SIGHUP
    finally:
        is_over.set()
        sender.join()


def test_put_after_the_end_does_not_fail() -> None:
    """A thread may report after the loop has ended."""
    events = Events()
    with events.of_signals():
        pass

    events.put("wake")
