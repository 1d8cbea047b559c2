"""
One part of the demo: plays its steps in order, and prints a line for each at the end.
"""

import os
import signal
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from tests.support.daemon import SidecarProcess

S = TypeVar("S")


@dataclass(frozen=True)
class Result:
    """
    The result of a step, and the seconds that its relevant part took; `None` if it was
    skipped.
    """

    what: str
    seconds: float | None


Step = tuple[str, Callable[[S], Result]]
"""A title, and the function that plays the step."""


def heading(text: str) -> None:
    """
    Print the title of a part or of a step; colored only on a terminal.
    """
    is_painted = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    print(f"\n\x1b[1m{text}\x1b[0m" if is_painted else f"\n{text}", flush=True)


def say(text: str) -> None:
    """
    Print a detail of a step.
    """
    print(textwrap.indent(text, "   "), flush=True)


def check(holds: bool, promise: str) -> None:
    """
    Raise AssertionError if a promise does not hold.
    """
    if not holds:
        raise AssertionError(f"check failed: {promise}")


def seconds_until(
    daemon: SidecarProcess, condition: Callable[[], object], what: str
) -> float:
    """
    Wait for what a process should do; return the seconds it took.
    """
    began = time.monotonic()
    daemon.wait_for(condition, what)
    return time.monotonic() - began


def play(steps: Sequence[Step[S]], stage: S) -> int:
    """
    Play all steps, print the table, and return the exit code.
    """
    rows: list[str] = []
    began = time.monotonic()
    for number, (title, step) in enumerate(steps, 1):
        heading(f"{number}. {title}")
        try:
            result = step(stage)
        except AssertionError as failure:
            heading(f"FAILED: {title}: {failure}")
            return 1
        took = "skipped" if result.seconds is None else f"{result.seconds:.2f} s"
        say(f"-> {result.what} ({took})")
        rows.append(
            textwrap.fill(
                f"{took:>8}  {title}: {result.what}", 100, subsequent_indent=" " * 10
            )
        )
    heading("\n".join([*rows, f"{time.monotonic() - began:6.2f} s  all steps passed"]))
    return 0


def prepare_process() -> None:
    """
    Remove the AWS settings, proxies and realms of this machine from the environment.

    SIGTERM becomes an exception, so that folders and processes are removed on every
    exit path.
    """
    for name in list(os.environ):
        if name.startswith(("AWS_", "KRB5")) or name.lower().endswith("_proxy"):
            del os.environ[name]
    os.environ["AWS_CONFIG_FILE"] = os.environ["AWS_SHARED_CREDENTIALS_FILE"] = (
        os.devnull
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
