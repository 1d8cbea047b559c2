"""
The output of the demo: plain lines, colored only on a terminal.
"""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH = 100


@dataclass(frozen=True)
class Row:
    """
    One row of the table at the end.
    """

    title: str
    what: str
    seconds: float | None


def _paint(code: str, text: str) -> str:
    if sys.stdout.isatty() and "NO_COLOR" not in os.environ:
        return f"\x1b[{code}m{text}\x1b[0m"
    return text


def heading(text: str) -> None:
    """
    Print the title of a step.
    """
    print(f"\n{_paint('1', text)}", flush=True)


def say(text: str) -> None:
    """
    Print a detail of a step.
    """
    print(textwrap.indent(text, "   "), flush=True)


def fail(title: str, problem: str) -> None:
    """
    Print the failure of a step.
    """
    print(_paint("1;31", f"\nFAILED: {title}: {problem}"), flush=True)


def show_log(name: str, log: Sequence[str]) -> None:
    """
    Print the end of a process's log.
    """
    print(f"Last lines of the log of {name}:")
    for line in log[-30:]:
        print(f"   {line}")
    sys.stdout.flush()


def table(rows: Sequence[Row]) -> None:
    """
    Print the steps, their results and durations.
    """
    first = max(len(row.title) for row in rows)
    middle = WIDTH - first - 12
    print(f"\n{_paint('1', 'step'.ljust(first))}  {'what happened'.ljust(middle)}      took")
    print(f"{'-' * first}  {'-' * middle}  --------")
    for row in rows:
        took = "" if row.seconds is None else f"{row.seconds:.2f} s"
        lines = textwrap.wrap(row.what, middle)
        print(f"{row.title.ljust(first)}  {lines[0].ljust(middle)}  {took:>8}")
        for line in lines[1:]:
            print(f"{' ' * first}  {line}")
    sys.stdout.flush()
