"""
The log stream: JSON lines on stdout, or a readable form on a terminal.

Records of the standard library (APScheduler, botocore, asyncio) pass through the same renderer, so
that every line of the container is valid JSON.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from sidecar_runtime.log_handler import DescriptorHandler
from sidecar_runtime.printable import printable

# SGR codes of ECMA-48.
_COLORS = {"event": "1", "debug": "2", "warning": "33", "error": "31", "critical": "31"}


def _name_event_first(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """
    Put timestamp, level and event before the rest, for people who read raw JSON.
    """
    first = ("timestamp", "level", "event")
    return {k: event[k] for k in first if k in event} | {
        k: v for k, v in event.items() if k not in first
    }


class ForPeople:
    """
    Renders an event for a terminal: what happened, why, what to do; zero values are omitted.
    """

    def __init__(self, *, has_colors: bool) -> None:
        self._has_colors = has_colors

    def __call__(self, _: WrappedLogger, __: str, event: EventDict) -> str:
        facts = dict(event)
        time = str(facts.pop("timestamp", ""))[11:19]
        level, name = str(facts.pop("level", "")), printable(str(facts.pop("event", "")))
        reason, error = facts.pop("reason", None), facts.pop("error", None)
        advice, trace = facts.pop("advice", None), facts.pop("exception", None)
        if "." not in facts.get("logger", ""):  # a logger of the sidecar, not of a library
            facts.pop("logger", None)
        why = ": ".join(printable(str(part)) for part in (reason, error) if part)
        rest = " ".join(f"{key}={_value(value)}" for key, value in facts.items() if value)
        head = [time, self._colored(f"{level:<7}", level), self._colored(name, "event"), why, rest]
        lines = ["  ".join(part for part in head if part)]
        if advice:
            lines.append(f"{'':8}  {'':7}  what to do: {printable(str(advice))}")
        if trace:
            lines += map(printable, str(trace).splitlines())
        return "\n".join(lines)

    def _colored(self, text: str, what: str) -> str:
        color = _COLORS.get(what) if self._has_colors else None
        return f"\x1b[{color}m{text}\x1b[0m" if color else text


def _value(value: object) -> str:
    text = printable(str(value))
    return repr(value) if isinstance(value, str) and " " in text else text


def configure(
    level: str, form: str | None, stream: TextIO | None = None, *, may_drop: bool = False
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
        final = [structlog.processors.format_exc_info, ForPeople(has_colors=out.isatty())]
    else:
        final = [
            structlog.processors.format_exc_info,
            _name_event_first,
            structlog.processors.JSONRenderer(),
        ]
    handler: logging.Handler = (
        DescriptorHandler(out.fileno(), _report_dropped) if may_drop else logging.StreamHandler(out)
    )
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # APScheduler logs every trigger at INFO; the line of the cycle contains more.
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


def _report_dropped(count: int) -> None:
    get_logger("logs").warning("log_lines_dropped", lines=count)


def get_logger(name: str) -> Any:
    """
    Return the structlog logger with that name.

    The return type is Any on purpose: structlog's lazy proxy has no static type.
    """
    return structlog.stdlib.get_logger(name)
