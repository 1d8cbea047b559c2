"""
What every ``check`` command prints: a line for each check, and below it what fixes it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from typing import Any, Literal

from sidecar_runtime.errors import EXIT_DONE, EXIT_GAVE_UP, SettingsError, SidecarError
from sidecar_runtime.printable import printable

STATUS_SECONDS = 2.0


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
            say("FAIL", name, str(problem))
        return False
    say("FAIL", name, f"{error.reason}: {error.message}")
    if error.advice:
        say("", "", error.advice)
    return False


def unknown(names: Mapping[str, str]) -> None:
    """
    Print the variables that nobody reads, each with what may be meant.
    """
    for name, right in names.items():
        say("??", "settings", f"{name} is not a setting{right and f'; is {right} meant?'}")


def daemon(
    sidecar: str, source: str, bind: tuple[str, int], target: str | None = None
) -> bool | None:
    """
    Print what the daemon that runs already says of itself: it may fail where a check succeeds.

    Args:
        sidecar: Together with source and target, as the daemon's /status has them.
        bind: Its host and port, by the settings that both have.
        target: None: whichever.

    Returns:
        The result of the check; None where no such daemon answers here.
    """
    status = _status(*bind)
    if (sidecar, source) != (status.get("sidecar"), status.get("source")):
        return None
    if target not in (None, status["target"]):
        return None
    if error := status["last_error"]:
        say("FAIL", "daemon", f"{error['reason']}: {error['error']}")
        say("", "", error["advice"])
    if lack := status["problem"] or status["shortfall"]:
        say("FAIL", "daemon", lack)
    if error or lack:
        return False
    say("ok", "daemon", f"has published {status['revision']}")
    return True


def _status(host: str, port: int) -> dict[str, Any]:
    """
    Return what the daemon's /status answers; empty where it does not.
    """
    with closing(HTTPConnection(host or "localhost", port, timeout=STATUS_SECONDS)) as connection:
        try:
            connection.request("GET", "/status")
            status = json.loads(connection.getresponse().read())
        except (OSError, HTTPException, ValueError):
            return {}
    return status if isinstance(status, dict) else {}


def exit_code(results: Iterable[bool]) -> int:
    """
    Return the exit code that the results of all checks make.
    """
    return EXIT_DONE if all(results) else EXIT_GAVE_UP
