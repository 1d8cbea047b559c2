"""
One part of the demo: its steps one after the other, and the table at its end.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from demo import console
from demo.console import Row
from demo.daemon import Daemon, StepFailed


class Stage(Protocol):
    """
    What steps act on.
    """

    @property
    def concerned(self) -> Daemon | None:
        """
        Whose log is worth reading when a step fails.
        """


S = TypeVar("S", bound=Stage)


@dataclass(frozen=True)
class Result:
    """
    What happened, and the seconds that the interesting part took; `None` where a step is left out.
    """

    what: str
    seconds: float | None


Step = tuple[str, Callable[[S], Result]]
"""A title, and what does it."""


def check(holds: bool, promise: str) -> None:
    """
    Raise `StepFailed` where a promise does not hold.
    """
    if not holds:
        raise StepFailed(f"not true: {promise}")


def play(steps: Sequence[Step[S]], stage: S) -> int:
    """
    Play all steps, print the table, and return the exit code.
    """
    rows: list[Row] = []
    began = time.monotonic()
    for number, (title, step) in enumerate(steps, 1):
        console.heading(f"{number}. {title}")
        try:
            result = step(stage)
        except (StepFailed, AssertionError) as failure:
            daemon = stage.concerned
            console.fail(title, str(failure))
            if daemon:
                console.show_log(daemon.name, daemon.lines())
            return 1
        rows.append(Row(title, result.what, result.seconds))
        took = "" if result.seconds is None else f" ({result.seconds:.2f} s)"
        console.say(f"-> {result.what}{took}")
    left_out = sum(row.seconds is None for row in rows)
    checked = "every step checked" + (f", except {left_out} not played" if left_out else "")
    console.table([*rows, Row("everything", checked, time.monotonic() - began)])
    return 0


def prepare_process() -> None:
    """
    Make this process deaf to AWS settings, proxies and realms of this machine.

    SIGTERM becomes an exception, so that folders and processes go on every way out.
    """
    for name in list(os.environ):
        if name.startswith(("AWS_", "KRB5")) or name.lower().endswith("_proxy"):
            del os.environ[name]
    os.environ["AWS_CONFIG_FILE"] = os.environ["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
