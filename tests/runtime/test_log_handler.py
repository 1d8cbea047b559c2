"""
The log handler drops lines instead of blocking if nothing reads the log.
"""

import json
import os
import select
import threading
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import Mock

import pytest

from sidecar_runtime import logs
from sidecar_runtime.logs import KEPT_BYTES, WAIT_SECONDS
from tests.runtime.recording import handlers_kept
from tests.support.machine.pipes import UnreadPipe, unread_pipe

ONE_WAIT = pytest.approx([WAIT_SECONDS * 1000])

log = logs.get_logger("box")


@pytest.fixture(autouse=True)
def earlier_handlers() -> Iterator[None]:
    with handlers_kept():
        yield


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits for a reader that were in vain, in milliseconds."""
    found: list[float] = []
    create = select.poll

    class Poll:
        def __init__(self) -> None:
            self._poll = create()
            self.register = self._poll.register

        def poll(self, milliseconds: float) -> list[tuple[int, int]]:
            ready = self._poll.poll(milliseconds)
            if milliseconds > 0 and not ready:
                found.append(milliseconds)
            return ready

    monkeypatch.setattr(select, "poll", Poll)
    return found


@pytest.fixture(params=["a pipe of ours", "a pipe of another user"])
def pipe(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, waits: list[float]
) -> Iterator[UnreadPipe]:
    """An unread pipe to which the log is written."""
    with unread_pipe() as pipe:
        with monkeypatch.context() as patch:
            if request.param != "a pipe of ours":  # such a pipe cannot be reopened
                patch.setattr(os, "open", Mock(side_effect=PermissionError))
            begin(pipe.writer)
        yield pipe


def begin(descriptor: int) -> None:
    stream = open(descriptor, "w", closefd=False)  # noqa: SIM115 - its owner closes it
    logs.configure("info", "json", stream, may_drop=True)


def events(text: str) -> list[dict[str, Any]]:
    """Return all lines except the empty ones with which the pipe was filled."""
    return [json.loads(line) for line in text.splitlines() if line]


def names(text: str) -> list[str]:
    return [event["event"] for event in events(text)]


def read_soon(pipe: UnreadPipe, deed: Callable[[], object]) -> str:
    """Read the pipe shortly after the start of an action and after its end; return the text."""
    texts: list[str] = []
    slow = threading.Timer(WAIT_SECONDS / 10, lambda: texts.append(pipe.drain()))
    slow.start()
    deed()
    slow.join()
    return "".join([*texts, pipe.drain()])


def say_much() -> None:
    for number in range(2_000):
        log.info("said", number=number)


def test_waits_once_for_a_full_pipe_and_counts_the_dropped_lines(
    pipe: UnreadPipe, waits: list[float]
) -> None:
    pipe.fill()
    say_much()
    assert ONE_WAIT == waits
    text = ""
    for name in ("second", "third"):
        text += pipe.drain()
        log.info(name)
    found = events(text + pipe.drain())

    numbers = [event["number"] for event in found if event["event"] == "said"]
    dropped = 2_000 - len(numbers)
    assert list(range(len(numbers))) == numbers
    assert KEPT_BYTES / 2 < len(json.dumps(found)) < KEPT_BYTES * 2
    rest = [(event["event"], event.get("lines")) for event in found[len(numbers) :]]
    assert [("log_lines_dropped", dropped), ("second", None), ("third", None)] == sorted(rest)


def test_loses_no_line_if_the_reader_pauses_briefly(pipe: UnreadPipe) -> None:
    pipe.fill()

    text = read_soon(pipe, lambda: log.info("said"))

    assert ["said"] == names(text)


def test_completes_a_long_line_that_did_not_fit_in_the_pipe(pipe: UnreadPipe) -> None:
    log.error("crashed", trace="x" * 100_000)
    log.info("next")
    text = pipe.drain()
    assert 1 == len(text.splitlines())

    log.info("last")

    found = events(text + pipe.drain())
    assert ["crashed", "next", "last"] == [event["event"] for event in found]
    assert 100_000 == len(found[0]["trace"])
