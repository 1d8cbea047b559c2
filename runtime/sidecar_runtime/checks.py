"""
The output of every ``check`` command: a line for each check, and below it how to fix a failure.
"""

import json
import socket
import sys
from collections.abc import Iterable, Mapping
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from typing import Any, Literal

from sidecar_runtime.errors import EXIT_DONE, EXIT_GAVE_UP, SettingsError, SidecarError
from sidecar_runtime.http.status import identity
from sidecar_runtime.printable import printable

ANSWER_SECONDS = 5.0


def say(mark: Literal["ok", "??", "FAIL", ""], name: str, text: str) -> None:
    """
    Print one line.

    Args:
        mark: ``??``: needs attention, but is not a failure. Empty: continues the line above.
        text: May be untrusted: characters that could control a terminal are escaped.
    """
    sys.stdout.write(f"  {mark:<5} {printable(name):<14} {printable(text)}\n")
    sys.stdout.flush()


def fail(name: str, error: SidecarError) -> bool:
    """
    Print the failure and the advice; return False, the result of the check.
    """
    if isinstance(error, SettingsError):
        for problem in error.problems:
            say("FAIL", name, str(problem))
        return False
    say("FAIL", name, f"{error.reason}: {error.message}")
    if error.advice:
        say("", "", error.advice)
    return False


def unknown(names: Iterable[str]) -> None:
    """
    Print variables with our prefix that are not settings.
    """
    for name in names:
        say("??", "settings", f"{name} is not a setting")


def daemon(
    sidecar: str,
    source: str,
    bind: tuple[str, int],
    holder: Mapping[str, Any] | None = None,
    *,
    patience_seconds: float = ANSWER_SECONDS,
) -> bool:
    """
    Print the state of a running daemon, if there is one: it may fail although the other checks
    succeed.

    Args:
        sidecar: The name of the sidecar; with `source` it identifies the daemon.
        bind: The host and port of the daemon, from the settings that it shares with this process.
        holder: The lock holder of the target, as in :func:`find_holder`; it should answer.
        patience_seconds: How long to wait for an answer.

    Returns:
        The result of the check.
    """
    host, port = bind
    where = f"{host or 'localhost'}:{port}"
    try:
        said, life = (_ask(host, port, path, patience_seconds) for path in ("/readyz", "/healthz"))
    except TimeoutError:
        say("FAIL", "daemon", f"accepts connections at {where} but does not answer")
        say("", "", "It is stopped or hangs. Check its log, then restart it.")
        return False
    if "identity" in said:
        if said["identity"] == identity(sidecar, source):
            return _judge(said, life)
        say("??", "daemon", f"the process that answers at {where} serves another source")
    elif holder:
        # In another pod, or with a port that only its log shows, it could not answer.
        could = port != 0 and holder.get("host") == socket.gethostname()
        who = f"pid {holder.get('pid')} on {holder.get('host')}"
        text = f"{who} holds the lock of the target but does not answer at {where}"
        say("FAIL" if could else "??", "daemon", text)
        return not could
    return True


def _judge(said: Mapping[str, Any], life: Mapping[str, Any]) -> bool:
    """
    Print the answers of /readyz and /healthz; return whether the daemon is ready and alive.
    """
    found = []
    if said["reason"]:
        found.append((f"{said['reason']}: {said['error']}", said["advice"]))
    if lack := "; ".join(filter(None, (said["problem"], said["shortfall"]))):
        found.append((lack, ""))
    if life.get("alive") is False:
        age = life["heartbeat_age_seconds"]
        found.append((f"is not alive: no cycle has finished for {age:.0f} s", "Restart it."))
    for text, advice in found:
        say("FAIL", "daemon", text)
        if advice:
            say("", "", advice)
    if not found:
        say("ok", "daemon", f"has published {said['revision']}")
    return not found


def _ask(host: str, port: int, path: str, patience_seconds: float) -> dict[str, Any]:
    """
    Return the daemon's answer; empty if nothing answers, or not with a JSON object.

    Raises:
        TimeoutError: The daemon accepts the connection, but does not answer.
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
    Return the exit code for the results of all checks.
    """
    return EXIT_DONE if all(results) else EXIT_GAVE_UP
