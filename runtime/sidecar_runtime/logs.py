"""
The log stream: JSON lines on stdout, or structlog's readable form on a terminal.

Records of the standard library (APScheduler, botocore, asyncio) pass through the same
renderer, so that every line of the container is valid JSON.
"""

import logging
import os
import queue
import select
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any, TextIO

from sidecar_runtime.errors import json_text, printable


@contextmanager
def _without_asyncio() -> Iterator[None]:
    """
    Keep an import from importing asyncio. structlog does for loggers of coroutines,
    which no sidecar has: a fifth of all that a one-shot imports.
    """
    empty = ModuleType("asyncio")
    used = sys.modules.setdefault("asyncio", empty)
    yield
    if used is empty:
        del sys.modules["asyncio"]


with _without_asyncio():
    import structlog
    from structlog.processors import JSONRenderer, TimeStamper, format_exc_info
    from structlog.stdlib import ProcessorFormatter
    from structlog.typing import EventDict, Processor, WrappedLogger

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


def _for_people(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """
    Omit what says little to people: the date, zeros. Escape the traceback as the rest
    is escaped.
    """
    first = {"timestamp": event["timestamp"][11:19]}
    trace = event.get("exception")
    if trace:
        first["exception"] = "\n".join(map(printable, trace.splitlines()))
    return {name: value for name, value in event.items() if value} | first


def _for_programs(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """
    Put timestamp, level and event first, for people who read raw JSON.
    """
    return {**dict.fromkeys(("timestamp", "level", "event")), **event}


def configure(
    level: str,
    stream: TextIO | None = None,
    *,
    for_people: bool = False,
    may_drop: bool = False,
) -> None:
    """
    Send structlog and the standard library's logging to one stream.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``.
        stream: Standard output by default.
        for_people: Whether to write for people even where that is no terminal.
        may_drop: Whether to drop lines instead of blocking the process when they are
            not read.
    """
    out = stream or sys.stdout
    shared: list[Processor] = [
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        TimeStamper(fmt="iso", utc=True),
    ]
    final: list[Processor] = [_for_programs, JSONRenderer(json_text)]
    if for_people or out.isatty():
        final = [
            _for_people,
            structlog.dev.ConsoleRenderer(sort_keys=False, repr_native_str=True),
        ]
    handler = UnblockedHandler(out.fileno()) if may_drop else logging.StreamHandler(out)
    final = [ProcessorFormatter.remove_processors_meta, format_exc_info, *final]
    handler.setFormatter(ProcessorFormatter(foreign_pre_chain=shared, processors=final))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # APScheduler logs every trigger at INFO; the line of the cycle contains more.
    logging.getLogger("apscheduler").setLevel(max(logging.WARNING, root.level))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def get_logger(name: str) -> Any:
    """
    Return the structlog logger with that name.

    The return type is Any on purpose: structlog's lazy proxy has no static type.
    """
    return structlog.stdlib.get_logger(name)
