"""
What every ``check`` command prints: a line for each check, and below it what fixes it.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterable, Mapping
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from typing import Any, Literal

from sidecar_runtime.errors import EXIT_DONE, EXIT_GAVE_UP, SettingsError, SidecarError
from sidecar_runtime.identity import identity
from sidecar_runtime.printable import printable

ANSWER_SECONDS = 5.0


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
    sidecar: str,
    source: str,
    bind: tuple[str, int],
    holder: Mapping[str, Any] | None = None,
    *,
    patience_seconds: float = ANSWER_SECONDS,
) -> bool:
    """
    Print what the daemon that runs already says of itself, where there is one: it may fail where a
    check succeeds.

    Args:
        sidecar: Together with the source, as the daemon has them.
        bind: Its host and port, by the settings that both have.
        holder: Who holds the target, as :func:`find_holder`: another who should answer.
        patience_seconds: How long an answer may take.

    Returns:
        The result of the check.
    """
    host, port = bind
    where = f"{host or 'localhost'}:{port}"
    try:
        said, life = (_ask(host, port, path, patience_seconds) for path in ("/readyz", "/healthz"))
    except TimeoutError:
        say("FAIL", "daemon", f"takes a connection at {where} and does not answer")
        say("", "", "It is stopped, or hangs: look at its log; a restart would help.")
        return False
    if "identity" not in said:
        return not holder or _miss(holder, where, has_port=port != 0)
    if said["identity"] != identity(sidecar, source):
        say("??", "daemon", f"what answers at {where} is not for this source")
        return True
    return _judge(said, life)


def _judge(said: Mapping[str, Any], life: Mapping[str, Any]) -> bool:
    """
    Print what /readyz and /healthz say; return whether all is well.
    """
    reason, lacks = said["reason"], [said["problem"], said["shortfall"]]
    if reason:
        say("FAIL", "daemon", f"{reason}: {said['error']}")
        say("", "", said["advice"] or "")
    if lack := "; ".join(filter(None, lacks)):
        say("FAIL", "daemon", lack)
    if is_dead := life.get("alive") is False:
        seconds = life["heartbeat_age_seconds"]
        say("FAIL", "daemon", f"is not alive: no cycle has ended for {seconds:.0f} s")
        say("", "", "A restart would help.")
    if reason or lack or is_dead:
        return False
    say("ok", "daemon", f"has published {said['revision']}")
    return True


def _miss(holder: Mapping[str, Any], where: str, *, has_port: bool) -> bool:
    """
    Print that who holds the target does not answer; that is a failure where it could: one in
    another pod cannot, nor one whose port only its log knows.
    """
    could = has_port and holder.get("host") == socket.gethostname()
    who = f"pid {holder.get('pid')} on {holder.get('host')}"
    text = f"{who} holds the target and does not answer at {where}"
    say("FAIL" if could else "??", "daemon", text)
    return not could


def _ask(host: str, port: int, path: str, patience_seconds: float) -> dict[str, Any]:
    """
    Return what the daemon answers; empty where nobody does, or not as ours would.

    Raises:
        TimeoutError: It takes the connection, and says nothing.
    """
    with closing(HTTPConnection(host or "localhost", port, timeout=patience_seconds)) as connection:
        try:
            connection.request("GET", path)
            said = json.loads(connection.getresponse().read())
        except TimeoutError:
            raise
        except (OSError, HTTPException, ValueError):
            return {}
    return said if isinstance(said, dict) else {}


def exit_code(results: Iterable[bool]) -> int:
    """
    Return the exit code that the results of all checks make.
    """
    return EXIT_DONE if all(results) else EXIT_GAVE_UP
