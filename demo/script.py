"""
One part of the demo: plays its steps in order, and prints the table at the end.
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
    The objects that the steps act on.
    """

    @property
    def concerned(self) -> Daemon | None:
        """
        The daemon whose log is printed when a step fails.
        """


S = TypeVar("S", bound=Stage)


@dataclass(frozen=True)
class Result:
    """
    The result of a step, and the seconds that its relevant part took; `None` if it was skipped.
    """

    what: str
    seconds: float | None


Step = tuple[str, Callable[[S], Result]]
"""A title, and the function that plays the step."""


def check(holds: bool, promise: str) -> None:
    """
    Raise `StepFailed` if a condition does not hold.
    """
    if not holds:
        raise StepFailed(f"check failed: {promise}")


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
    skipped = sum(row.seconds is None for row in rows)
    summary = "all steps passed" + (f", {skipped} skipped" if skipped else "")
    console.table([*rows, Row("total", summary, time.monotonic() - began)])
    return 0


def prepare_process() -> None:
    """
    Remove the AWS settings, proxies and realms of this machine from the environment.

    SIGTERM becomes an exception, so that folders and processes are removed on every exit path.
    """
    for name in list(os.environ):
        if name.startswith(("AWS_", "KRB5")) or name.lower().endswith("_proxy"):
            del os.environ[name]
    os.environ["AWS_CONFIG_FILE"] = os.environ["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
