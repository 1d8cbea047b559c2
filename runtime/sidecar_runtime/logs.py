"""
The log stream: JSON lines on stdout, or structlog's readable form on a terminal.

Records of the standard library (APScheduler, botocore, asyncio) pass through the same renderer, so
that every line of the container is valid JSON.
"""

import logging
import os
import select
import stat
import sys
from contextlib import suppress
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from sidecar_runtime.printable import json_text, printable

WAIT_SECONDS = 0.3
KEPT_BYTES = 64 << 10


class DescriptorHandler(logging.Handler):
    """
    Writes to a pipe, a socket, a terminal or a file, without blocking on a slow reader.

    A log driver that stops reading must not stop the process. The handler waits ``WAIT_SECONDS``
    for it, and not again until it reads, except at the end of the process. Lines that cannot be
    written now are kept until the next line, up to ``KEPT_BYTES``; further lines are dropped and
    counted. The same applies to a full disk and a closed pipe.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = _unblocked(descriptor)
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLOUT)
        self._is_read = True
        self._kept = b""
        self._dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = f"{self.format(record)}\n".encode(errors="backslashreplace")
        except Exception:  # noqa: BLE001 - as in every handler: lose the line, not the process
            self.handleError(record)
            return
        self.flush()
        if self._kept and len(self._kept) + len(line) > KEPT_BYTES:
            self._dropped += 1
            return
        self._kept += line
        self.flush()

    def flush(self) -> None:
        with suppress(OSError):
            while self._kept and self._is_writable():
                # A writable pipe accepts this much without blocking, if it has no other writer.
                written = os.write(self._descriptor, self._kept[: select.PIPE_BUF])
                self._kept = self._kept[written:]
        if self._dropped and not self._kept:
            count, self._dropped = self._dropped, 0
            get_logger("logs").warning("log_lines_dropped", lines=count)

    def _is_writable(self) -> bool:
        wait_seconds = WAIT_SECONDS if self._is_read else 0.0
        self._is_read = bool(self._poll.poll(wait_seconds * 1000))
        return self._is_read

    def close(self) -> None:
        self._is_read = True
        self.flush()
        super().close()


def _unblocked(descriptor: int) -> int:
    """
    Reopen a pipe or terminal: O_NONBLOCK would otherwise affect all processes that share it.

    A write to a terminal may block although it is writable. A pipe of another user, as in some
    container runtimes, cannot be reopened and is used as it is.
    """
    with suppress(OSError):
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY
            return os.open(f"/proc/self/fd/{descriptor}", flags)
    return descriptor


def _for_people(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """
    Omit what says little to people: the date, zeros. Escape the traceback as the rest is escaped.
    """
    first = {"timestamp": event["timestamp"][11:19]}
    if trace := event.get("exception"):
        first["exception"] = "\n".join(map(printable, trace.splitlines()))
    return {name: value for name, value in event.items() if value} | first


def _for_programs(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """
    Put timestamp, level and event first, for people who read raw JSON.
    """
    first = {key: event.pop(key) for key in ("timestamp", "level", "event")}
    return {**first, **event}


def configure(
    level: str, form: str | None = None, stream: TextIO | None = None, *, may_drop: bool = False
) -> None:
    """
    Send structlog and the standard library's logging to one stream.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``.
        form: ``json`` or ``console``; ``None`` selects ``console`` on a terminal only.
        stream: Standard output by default.
        may_drop: Whether to drop lines instead of blocking the process when they are not read.
    """
    out = stream if stream is not None else sys.stdout
    shared: list[Processor] = [
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    final: list[Processor] = [_for_programs, structlog.processors.JSONRenderer(json_text)]
    if form == "console" or (form is None and out.isatty()):
        renderer = structlog.dev.ConsoleRenderer(sort_keys=False, repr_native_str=True)
        final = [_for_people, renderer]
    handler = DescriptorHandler(out.fileno()) if may_drop else logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                *final,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # APScheduler logs every trigger at INFO; the line of the cycle contains more.
    for chatty in ("apscheduler", "asyncio"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
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
