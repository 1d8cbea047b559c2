"""
The format of the log: all lines of a container pass through one renderer.
"""

import io
import json
import logging
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from sidecar_runtime import logs
from tests.runtime.recording import handlers_kept


@pytest.fixture(autouse=True)
def earlier_handlers() -> Iterator[None]:
    with handlers_kept():
        yield


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_json_with_time_level_and_event_first(stream: io.StringIO) -> None:
    logs.configure("info", "json", stream)

    logs.get_logger("box").info("box_opened", size_bytes=3, path="ü\n\"'")

    line = lines(stream)[0]
    assert ["timestamp", "level", "event"] == list(line)[:3]
    assert str(line.pop("timestamp")).endswith("Z")
    assert {
        "level": "info",
        "event": "box_opened",
        "logger": "box",
        "size_bytes": 3,
        "path": "ü\n\"'",
    } == line


def test_standard_library_records_have_the_same_format(stream: io.StringIO) -> None:
    logs.configure("info", "json", stream)

    logging.getLogger("botocore.credentials").info("Found %s in %s", "keys", "environment")

    line = lines(stream)[0]
    assert ["timestamp", "level", "event"] == list(line)[:3]
    assert ("info", "Found keys in environment") == (line["level"], line["event"])
    assert "botocore.credentials" == line["logger"]


def test_a_traceback_is_part_of_its_line(stream: io.StringIO) -> None:
    logs.configure("info", "json", stream)
    try:
        raise ValueError("bad\nvalue")
    except ValueError:
        logs.get_logger("box").exception("box_failed")
        logging.getLogger("other").exception("other failed")

    for line in lines(stream):
        assert "Traceback" in str(line["exception"])
        assert "ValueError: bad\nvalue" in str(line["exception"])


def test_the_level_applies_to_structlog_and_standard_loggers(stream: io.StringIO) -> None:
    logs.configure("warning", "json", stream)

    for log in (logs.get_logger("box"), logging.getLogger("other")):
        log.debug("too little")
        log.info("too little")
        log.warning("enough")
        log.error("enough")

    assert ["enough"] * 4 == [line["event"] for line in lines(stream)]


def test_logs_values_that_json_does_not_support(stream: io.StringIO) -> None:
    logs.configure("info", "json", stream)

    logs.get_logger("box").info("shown", path=os, odd="caf\udce9", items={1, 2})

    line = lines(stream)[0]
    assert "module 'os'" in str(line["path"])
    assert (r"caf\udce9", "{1, 2}") == (line["odd"], line["items"])


def test_console_format_is_readable_and_escaped(stream: io.StringIO) -> None:
    logs.configure("info", "console", stream)

    logs.get_logger("box").info("box_opened", size_bytes=3, files_deleted=0, path="a b")
    logs.get_logger("box").warning(
        "box_failed", advice="Open it\x1b[2J.", error="it is \u202ethere", reason="closed", at=1
    )
    logging.getLogger("botocore.credentials").info("Found %s", "keys")
    try:
        raise ValueError("bad\x1b[2J")
    except ValueError:
        logs.get_logger("box").exception("box_crashed")

    text = re.sub(r"\x1b\[\d*m", "", stream.getvalue())  # the colors
    opened, failed, found, crashed, *trace = text.splitlines()
    said = r"\d\d:\d\d:\d\d \[info +\] box_opened +\[box\] size_bytes=3 path='a b'"
    assert re.fullmatch(said, opened)
    said = r"advice='Open it\x1b[2J.' error='it is \u202ethere' reason='closed' at=1"
    assert re.search(r"\[warning +\] box_failed +", failed) and failed.endswith(said)
    assert re.search(r"Found keys +\[botocore.credentials\]", found)
    assert "box_crashed" in crashed and "ValueError: bad\\x1b[2J" == trace[-1]


PROGRAM = """
from sidecar_runtime import logs
logs.configure("info", {form!r})
logs.get_logger("box").info("box_opened", key={key!r})
logs.get_logger("box").info("the_end")
"""


def run_on_terminal(form: str | None) -> str:
    """Run a program whose standard output is a terminal, and return its output."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(form=form, key="x")], stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    written = b""
    try:
        while read := os.read(ours, 4096):
            written += read
    except OSError:  # the program has ended
        pass
    os.close(ours)
    assert process.wait(20) == 0
    return written.decode()


def run_in_pipe(form: str | None, key: str = "x") -> str:
    command = [sys.executable, "-c", PROGRAM.format(form=form, key=key)]
    return subprocess.run(command, capture_output=True, check=True).stdout.decode(errors="replace")


def test_a_terminal_gets_console_format_and_a_pipe_gets_json() -> None:
    terminal, pipe = run_on_terminal(None), run_in_pipe(None)

    assert "{" not in terminal and "box_opened" in terminal
    assert [json.loads(line)["event"] for line in pipe.splitlines()] == ["box_opened", "the_end"]


@pytest.mark.parametrize("form", ["json", "console"])
def test_logs_a_line_with_a_value_that_is_not_valid_unicode(form: str) -> None:
    out = run_in_pipe(form, "caf\udce9")

    assert "box_opened" in out and "the_end" in out
