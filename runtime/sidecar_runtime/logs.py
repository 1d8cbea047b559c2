"""
One log stream: JSON lines on stdout, or a readable form on a terminal.

Records of the standard library (APScheduler, botocore, asyncio) come through the same
renderer, so that every line of the container parses.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger


def _name_event_first(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """
    Put timestamp, level and event before the rest, for people who read raw JSON.
    """
    first = ("timestamp", "level", "event")
    return {k: event[k] for k in first if k in event} | {
        k: v for k, v in event.items() if k not in first
    }


def configure(level: str, form: str | None, stream: TextIO | None = None) -> None:
    """
    Send structlog and the standard library's logging to one stream.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``.
        form: ``json`` or ``console``; ``None`` takes ``console`` on a terminal only.
        stream: Standard output unless given.
    """
    out = stream if stream is not None else sys.stdout
    use_console = form == "console" or (form is None and out.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.UnicodeDecoder(),
    ]
    final: list[Processor]
    if use_console:
        final = [structlog.dev.ConsoleRenderer(colors=out.isatty())]
    else:
        final = [
            structlog.processors.format_exc_info,
            _name_event_first,
            structlog.processors.JSONRenderer(),
        ]
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # APScheduler tells of every trigger at INFO; the cycle's own line says more.
    logging.getLogger("apscheduler").setLevel(max(logging.WARNING, root.level))
    logging.getLogger("asyncio").setLevel(max(logging.WARNING, root.level))
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
    Return the structlog logger of that name.

    Typed loosely on purpose: structlog's lazy proxy has no static type.
    """
    return structlog.stdlib.get_logger(name)
