"""
A log without a reader costs lines, not time.
"""

import json
import logging
import os
import pty
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from sidecar_runtime import log_handler, logs
from sidecar_runtime.log_handler import KEPT_BYTES, WAIT_SECONDS
from tests.runtime.recording import handlers_kept
from tests.support.pipes import UnreadPipe, unread_pipe

log = logs.get_logger("box")


@pytest.fixture(autouse=True)
def earlier_handlers() -> Iterator[None]:
    with handlers_kept():
        yield


@pytest.fixture(params=["a pipe of ours", "a pipe of another user"])
def pipe(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[UnreadPipe]:
    """Provide the log."""
    if request.param != "a pipe of ours":  # which cannot be opened again
        monkeypatch.setattr(log_handler, "_unblocked", lambda descriptor: descriptor)
    with unread_pipe() as pipe:
        begin(pipe.writer)
        yield pipe


def begin(descriptor: int) -> None:
    stream = open(descriptor, "w", closefd=False)  # noqa: SIM115 - its owner closes it
    logs.configure("info", "json", stream, may_drop=True)


def events(text: str) -> list[dict[str, Any]]:
    """Return all lines; those with which the pipe was filled are empty."""
    return [json.loads(line) for line in text.splitlines() if line]


def names(text: str) -> list[str]:
    return [event["event"] for event in events(text)]


def seconds_of(deed: Callable[[], object]) -> float:
    began = time.monotonic()
    deed()
    return time.monotonic() - began


def read_soon(pipe: UnreadPipe, deed: Callable[[], object]) -> str:
    """Return the output shortly after the start of an action, and after its end."""
    texts: list[str] = []
    slow = threading.Timer(WAIT_SECONDS / 10, lambda: texts.append(pipe.drain()))
    slow.start()
    deed()
    slow.join()
    return "".join([*texts, pipe.drain()])


def say_much() -> None:
    for number in range(2_000):
        log.info("said", number=number)


def test_a_full_pipe_is_waited_for_once_and_what_is_dropped_is_counted(pipe: UnreadPipe) -> None:
    pipe.fill()
    seconds = seconds_of(say_much)
    text = ""
    for name in ("second", "third"):
        text += pipe.drain()
        log.info(name)
    found = events(text + pipe.drain())

    numbers = [event["number"] for event in found if event["event"] == "said"]
    dropped = 2_000 - len(numbers)
    assert seconds < WAIT_SECONDS + 2
    assert list(range(len(numbers))) == numbers
    assert KEPT_BYTES / 2 < len(json.dumps(found)) < KEPT_BYTES * 2
    rest = [(event["event"], event.get("lines")) for event in found[len(numbers) :]]
    assert [("second", None), ("log_lines_dropped", dropped), ("third", None)] == rest


def test_no_line_is_lost_where_the_reader_is_slow_for_a_moment(pipe: UnreadPipe) -> None:
    pipe.fill()

    text = read_soon(pipe, lambda: log.info("said"))

    assert ["said"] == names(text)


def test_a_long_line_comes_whole_though_only_its_beginning_had_room(pipe: UnreadPipe) -> None:
    log.error("crashed", trace="x" * 100_000)
    log.info("next")
    text = pipe.drain()
    assert 1 == len(text.splitlines())

    log.info("last")

    found = events(text + pipe.drain())
    assert ["crashed", "next", "last"] == [event["event"] for event in found]
    assert 100_000 == len(found[0]["trace"])


def test_the_last_lines_wait_for_their_reader_again(pipe: UnreadPipe) -> None:
    pipe.fill()
    log.info("said")  # it has waited, in vain

    text = read_soon(pipe, close_log)

    assert ["said"] == names(text)


def close_log() -> None:
    logging.getLogger().handlers[0].close()


def test_whoever_waits_holds_up_no_other_thread_for_longer(pipe: UnreadPipe) -> None:
    pipe.fill()
    threads = [threading.Thread(target=say_much) for _ in range(4)]

    def all_at_once() -> None:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert seconds_of(all_at_once) < WAIT_SECONDS + 4


def test_without_a_reader_nothing_is_said_anywhere(
    pipe: UnreadPipe, capfd: pytest.CaptureFixture[str]
) -> None:
    pipe.close_reader()

    seconds = seconds_of(say_much)
    close_log()

    assert (seconds < 2, ("", "")) == (True, capfd.readouterr())


def test_a_pipe_that_does_not_block_is_no_other(pipe: UnreadPipe) -> None:
    """A parent that shares the pipe may have set O_NONBLOCK."""
    os.set_blocking(pipe.writer, False)
    log.error("crashed", trace="x" * 100_000)
    text = pipe.drain()

    log.info("next")

    assert ["crashed", "next"] == names(text + pipe.drain())


@pytest.mark.parametrize("kind", ["socket", "terminal"])
def test_other_readers_that_do_not_read_are_not_waited_for(kind: str) -> None:
    with ExitStack() as stack:
        if kind == "socket":
            ends = [stack.enter_context(end).fileno() for end in socket.socketpair()]
        else:
            ends = list(pty.openpty())
            stack.callback(lambda: [os.close(end) for end in ends])
        begin(ends[1])

        assert seconds_of(say_much) < WAIT_SECONDS + 2


def test_a_full_disk_takes_no_line_and_no_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    with open("/dev/full", "w") as full:
        begin(full.fileno())
        say_much()
        close_log()

    assert ("", "") == capfd.readouterr()
