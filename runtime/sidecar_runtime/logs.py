"""
The log stream: JSON lines on stdout, or structlog's readable form on a terminal.

Records of libraries (APScheduler, botocore, asyncio) pass through the same formatter,
so that every line of the container is valid JSON.
"""

import logging
import os
import queue
import select
import sys
import threading
import time
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, TextIO

from sidecar_runtime.errors import json_text, printable

WAIT_SECONDS = 0.3
KEPT_LINES = 500


class UnblockedHandler(logging.Handler):
    """
    Writes in a thread of its own: a log driver that stops reading must not stop the
    process.

    Lines that cannot be written now are kept, up to ``KEPT_LINES``; further ones are
    dropped and counted. The end of the process waits ``WAIT_SECONDS`` for them.

    Raises:
        RuntimeError: No thread can be started.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._lines: queue.Queue[bytes] = queue.Queue(KEPT_LINES)
        self._dropped = 0
        threading.Thread(
            target=self._write, args=[descriptor], name="log", daemon=True
        ).start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.put_nowait(
                f"{self.format(record)}\n".encode(errors="backslashreplace")
            )
        except queue.Full:
            self._dropped += 1
        except Exception:  # noqa: BLE001 - as in every handler: lose the line, not the process
            self.handleError(record)

    def _write(self, descriptor: int) -> None:
        while True:
            line = self._lines.get()
            with suppress(OSError):  # a full disk, a closed pipe
                while line:
                    # who shares the pipe may not want to block, and fill it meanwhile
                    select.select([], [descriptor], [])
                    with suppress(BlockingIOError):
                        line = line[os.write(descriptor, line) :]
            self._lines.task_done()
            if self._dropped and self._lines.empty():
                count = self._dropped
                self._dropped = 0
                get_logger("logs").warning("log_lines_dropped", lines=count)

    def flush(self) -> None:
        until = time.monotonic() + WAIT_SECONDS
        while self._lines.unfinished_tasks and time.monotonic() < until:
            time.sleep(0.005)


class Formatter(logging.Formatter):
    """
    Renders a record of any logger: first timestamp, level and event, for people who
    read raw JSON.
    """

    def __init__(self, render: Callable[[dict[str, Any]], str]) -> None:
        super().__init__()
        self._render = render

    def format(self, record: logging.LogRecord) -> str:
        event = {
            "timestamp": f"{datetime.fromtimestamp(record.created, UTC):%FT%T.%fZ}",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "facts", {}),
            "logger": record.name,
        }
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        return self._render(event)


def _for_people() -> Callable[[dict[str, Any]], str]:
    """
    Return what omits from a line what says little to people: the date, zeros. It
    escapes the traceback as the rest is escaped.
    """
    from structlog.dev import ConsoleRenderer  # noqa: PLC0415 - 17 ms of each start

    show = ConsoleRenderer(sort_keys=False, repr_native_str=True)

    def render(event: dict[str, Any]) -> str:
        shown = {name: value for name, value in event.items() if value}
        shown["timestamp"] = event["timestamp"][11:19]
        if "exception" in shown:
            trace = shown["exception"].splitlines()
            shown["exception"] = "\n".join(map(printable, trace))
        return show(None, "", shown)

    return render


def configure(
    level: str,
    stream: TextIO | None = None,
    *,
    for_people: bool = False,
    may_drop: bool = False,
) -> None:
    """
    Send our lines and those of the standard library's logging to one stream.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``.
        stream: Standard output by default.
        for_people: Whether to write for people even where that is no terminal.
        may_drop: Whether to drop lines instead of blocking the process when they are
            not read.
    """
    out = stream if stream is not None else sys.stdout
    handler = UnblockedHandler(out.fileno()) if may_drop else logging.StreamHandler(out)
    render: Callable[[dict[str, Any]], str] = partial(json_text, default=repr)
    if for_people or out.isatty():
        render = _for_people()
    handler.setFormatter(Formatter(render))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # APScheduler logs every trigger at INFO; the line of the cycle contains more.
    for chatty in ("apscheduler", "asyncio"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))


class Logger(logging.LoggerAdapter[logging.Logger]):
    """
    Logs events, with their facts as keywords.
    """

    def process(self, msg: str, kwargs: MutableMapping[str, Any]) -> tuple[str, Any]:
        error = kwargs.pop("exc_info", None)
        return msg, {"exc_info": error, "extra": {"facts": kwargs}}


def get_logger(name: str) -> Any:
    """
    Return the logger with that name; Any, because facts may have any name.
    """
    return Logger(logging.getLogger(name))
