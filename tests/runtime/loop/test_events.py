"""
The queue on which the main thread waits.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from sidecar_runtime.loop.events import Events

# A wait that missed its event exceeds the time limit of the test.
LONG_SECONDS = 3600.0


@pytest.fixture
def events() -> Iterator[Events[str]]:
    with closing(Events[str]()) as events:
        yield events


@pytest.fixture
def sighup(events: Events[str]) -> Iterator[None]:
    """A handler that turns SIGHUP into an event, as in the loop."""
    handler = signal.signal(signal.SIGHUP, lambda *_: events.put("hup"))
    wakeup = events.listen_to_signals()
    yield
    signal.set_wakeup_fd(wakeup)
    signal.signal(signal.SIGHUP, handler)


def test_returns_events_in_order(events: Events[str]) -> None:
    for name in ("a", "b", "c"):
        events.put(name)

    assert ["a", "b", "c"] == [events.get(0) for _ in range(3)]


def test_returns_none_when_the_time_is_up(events: Events[str]) -> None:
    assert events.get(0.05) is None
    assert events.get(0) is None
    assert events.get(-5) is None


def test_a_stale_wakeup_does_not_shorten_the_wait(events: Events[str]) -> None:
    events.put("a")
    assert events.get(1) == "a"
    threading.Timer(0.1, events.put, ["late"]).start()

    assert events.get(LONG_SECONDS) == "late"


def test_an_event_from_another_thread_ends_the_wait(events: Events[str]) -> None:
    threading.Timer(0.02, events.put, ["late"]).start()

    assert events.get(LONG_SECONDS) == "late"


def test_keeps_more_events_than_the_socket_buffer_holds(events: Events[str]) -> None:
    for number in range(20_000):
        events.put(str(number))

    assert [str(number) for number in range(20_000)] == [events.get(0) for _ in range(20_000)]


def test_listen_to_signals_sets_the_wakeup_descriptor(events: Events[str]) -> None:
    """A Python handler runs too late for a wait that is about to start; the C handler does not."""
    before = events.listen_to_signals()
    fd = signal.set_wakeup_fd(before)

    assert fd == events._waker.fileno()


@pytest.mark.usefixtures("sighup")
def test_a_signal_ends_the_wait_whenever_it_arrives(events: Events[str]) -> None:
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
            assert events.get(LONG_SECONDS) == "hup"
    finally:
        is_over.set()
        sender.join()


def test_put_after_close_does_not_fail(events: Events[str]) -> None:
    """A thread may report after the loop has ended."""
    events.close()

    events.put("late")
