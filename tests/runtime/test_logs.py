"""
The format of the log: all lines of a container pass through one renderer. Untrusted
text.
"""

import io
import json
import logging
import os
import re
from collections.abc import Iterator
from unittest.mock import Mock

import pytest

from sidecar_runtime import logs
from sidecar_runtime.errors import SidecarError, json_text
from tests import Facts
from tests.runtime.recording import handlers_kept
from tests.support.machine.pipes import unread_pipe


@pytest.fixture(autouse=True)
def earlier_handlers() -> Iterator[None]:
    with handlers_kept():
        yield


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def lines(stream: io.StringIO) -> list[Facts]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_traceback_is_part_of_its_line_from_any_logger(stream: io.StringIO) -> None:
    logs.configure("info", stream)
    try:
        raise ValueError("bad\nvalue")
    except ValueError:
        logs.get_logger("box").exception("box_failed")
        logging.getLogger("other").exception("other %s", "failed")

    ours, theirs = lines(stream)
    assert ("box_failed", "box") == (ours["event"], ours["logger"])
    assert ("other failed", "other", "error") == (
        theirs["event"],
        theirs["logger"],
        theirs["level"],
    )
    for line in lines(stream):
        assert str(line["timestamp"]).endswith("Z"), "wherever the process runs"
        assert "Traceback" in str(line["exception"])
        assert "ValueError: bad\nvalue" in str(line["exception"])


def test_logs_values_that_json_does_not_support(stream: io.StringIO) -> None:
    logs.configure("info", stream)

    logs.get_logger("box").info("shown", path=os, odd="caf\udce9", items={1, 2})

    line = lines(stream)[0]
    assert "module 'os'" in str(line["path"])
    assert (r"caf\udce9", "{1, 2}") == (line["odd"], line["items"])


def test_what_a_server_says_makes_no_endless_line() -> None:

    assert (
        len(str(SidecarError("database_error", "x" * 1_000_000).log_fields())) < 20_000
    )


def test_console_format_is_readable_and_escaped(stream: io.StringIO) -> None:
    logs.configure("info", stream, for_people=True)

    logs.get_logger("box").info("box_opened", size_bytes=3, files_deleted=0, path="a b")
    logs.get_logger("box").warning(
        "box_failed",
        advice="Open it\x1b[2J.",
        error="it is \u202ethere",
        reason="closed",
        at=1,
    )
    logging.getLogger("botocore.credentials").info("Found %s", "keys")
    try:
        raise ValueError("bad\x1b[2J")
    except ValueError:
        logs.get_logger("box").exception("box_crashed")

    opened, failed, found, crashed, *trace = re.sub(
        r"\x1b\[\d*m", "", stream.getvalue()
    ).splitlines()
    said = r"\d\d:\d\d:\d\d \[info +\] box_opened +\[box\] size_bytes=3 path='a b'"
    assert re.fullmatch(said, opened)
    said = r"advice='Open it\x1b[2J.' error='it is \u202ethere' reason='closed' at=1"
    assert re.search(r"\[warning +\] box_failed +", failed) and failed.endswith(said)
    assert re.search(r"Found keys +\[botocore.credentials\]", found)
    assert "box_crashed" in crashed and "ValueError: bad\\x1b[2J" == trace[-1]


def test_a_pipe_that_another_process_has_filled_loses_no_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever shares it may have set it not to block."""
    write = Mock(side_effect=[7, BlockingIOError, 6])
    monkeypatch.setattr(os, "write", write)
    with unread_pipe() as pipe:
        handler = logs.UnblockedHandler(pipe.writer)
        handler.emit(logging.makeLogRecord({"msg": "a whole line"}))
        handler.flush()

    assert [b"a whole line\n", b" line\n", b" line\n"] == [
        call.args[1] for call in write.mock_calls
    ]


# --- text for display and in JSON


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("caf\udce9", r"caf\udce9"),
        ("\ud83d\ud83d\ude00", "\\ud83d\U0001f600"),
        (r"\udce9 \\udce9", r"\udce9 \\udce9"),
        ("\\\udce9", r"\\udce9"),
        ('\U0001f600 \u202e ü \n " \\', '\U0001f600 \u202e ü \n " \\'),
    ],
)
def test_json_contains_no_lone_surrogates_and_all_other_text_unchanged(
    text: str, shown: str
) -> None:
    written = json_text({text: [text]}, indent=2)

    assert written.isascii()
    assert {shown: [shown]} == json.loads(written)
