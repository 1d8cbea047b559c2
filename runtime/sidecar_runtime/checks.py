"""
What every ``check`` command prints: a line for each check, and below it what fixes it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Literal

from sidecar_runtime.errors import EXIT_DONE, EXIT_GAVE_UP, SettingsError, SidecarError
from sidecar_runtime.printable import printable


def say(mark: Literal["ok", "??", "FAIL", ""], name: str, text: str) -> None:
    """
    Print one line.

    Args:
        mark: ``??``: worth a look, and no failure. Empty: the line goes on with the one above.
        text: May be of others: what could steer a terminal is shown as a number.
    """
    sys.stdout.write(f"  {mark:<5} {printable(name):<14} {printable(text)}\n")
    sys.stdout.flush()


def fail(name: str, error: SidecarError) -> bool:
    """
    Print what failed and what to do; return False, the result of the check.
    """
    if isinstance(error, SettingsError):
        for problem in error.problems:
            say("FAIL", name, f"{problem.setting} {problem.value!r} {problem.problem}")
        return False
    say("FAIL", name, f"{error.reason}: {error.message}")
    if error.advice:
        say("", "", error.advice)
    return False


def exit_code(results: Iterable[bool]) -> int:
    """
    Return the exit code that the results of all checks make.
    """
    return EXIT_DONE if all(results) else EXIT_GAVE_UP
