"""
The output of every ``check`` command: a line for each check, and below it how to fix a
failure.
"""

import json
import os
import shutil
import socket
import sys
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any, Literal

from sidecar_runtime import proxies
from sidecar_runtime.child import parent_folder
from sidecar_runtime.errors import EXIT_DONE, EXIT_GAVE_UP, SidecarError, printable
from sidecar_runtime.fence import Fence
from sidecar_runtime.gate.gate import Gate
from sidecar_runtime.health import CALM
from sidecar_runtime.volume.files import explained, nearest_folder, take_flock
from sidecar_runtime.volume.snapshots import make_symlink

ANSWER_SECONDS = 5.0
ANSWER_BYTES = 1 << 20
DAG = "dag.py"
TRIED_BYTES = 64 << 10
# A check that takes longer tells how long.
SLOW_SECONDS = 0.1

_said_at = deque([time.monotonic()], maxlen=1)


def say(mark: Literal["ok", "??", "FAIL", ""], name: str, text: str) -> None:
    """
    Print one line.

    Args:
        mark: ``??``: needs attention, but is not a failure. Empty: continues the line
            above.
        text: May be untrusted: characters that could control a terminal are escaped.
    """
    now = time.monotonic()
    seconds = now - _said_at[0]
    took = f" (took {seconds:.1f} s)" if seconds > SLOW_SECONDS else ""
    sys.stdout.write(f"  {mark:<5} {printable(name):<14} {printable(text)}{took}\n")
    _said_at.append(now)
    sys.stdout.flush()


def fail(name: str, error: SidecarError) -> bool:
    """
    Print the failure and the advice; return False, the result of the check.
    """
    say("FAIL", name, f"{error.reason}: {error.message}")
    if error.advice:
        say("", "", error.advice)
    return False


def unknown(names: Iterable[str]) -> None:
    """
    Print variables with our prefix that are not settings, and entries of NO_PROXY
    without meaning.
    """
    for name in names:
        say("??", "settings", f"{name} is not a setting")
    for name, why in proxies.ignored(os.environ).items():
        say("??", "settings", f"{name}: {why}")


def try_folder(
    name: str, path: str, *, needs_symlinks: bool, needed_bytes: int = TRIED_BYTES
) -> None:
    """
    Print that a folder is writable or can be created, and has room for so much.

    Nothing is left behind, also if the check is killed while it waits for the disk:
    what it writes has no name then.

    Raises:
        TargetError: The folder is not writable, or its file system lacks what a sidecar
            needs.
    """
    with explained(f"cannot write to {path}"):
        folder = nearest_folder(path)
        with TemporaryFile(dir=folder, prefix=".check-") as file:
            take_flock(file.fileno())
            file.write(bytes(needed_bytes))  # a full volume still takes an empty file
            file.flush()
            os.fsync(file.fileno())
        if needs_symlinks:
            symlink = f"{folder}/.check-{time.time_ns()}"
            make_symlink("nowhere", symlink)
            os.unlink(symlink)
        free = shutil.disk_usage(folder).free >> 20
    made = "" if folder == path else " (the daemon will create it)"
    say(
        "ok" if free else "??",
        name,
        f"{path}{made} is writable as uid {os.getuid()}, {free} MiB free",
    )


def try_gate(gate: Gate | None, name: str, fence: Fence) -> bool:
    """
    Print whether the gate can run, by having it judge a folder with a DAG that does
    nothing.

    It does not judge the source, which only a daemon has on disk; the daemon reports
    those verdicts.

    Args:
        name: The kind of gate, as in the settings.

    Raises:
        CycleAbandoned: The fence was revoked.
    """
    if gate is None:
        say("ok", "gate", "off")
        return True
    place = parent_folder()
    try:
        with (
            explained(f"cannot write to {place}"),
            TemporaryDirectory(dir=place) as inside,
        ):
            os.chmod(inside, 0o755)  # noqa: S103 - the command may run as another user
            Path(inside, DAG).write_text("pass\n")
            refusal = gate.examine("check", inside, [DAG], fence)
    except SidecarError as error:
        return fail("gate", error)
    say("ok", "gate", f"{name}: tried without the source, which only a daemon judges")
    if refusal:
        say(
            "??",
            "",
            f"it refuses a folder with a DAG that does nothing: {refusal.message}",
        )
    return True


def daemon(bind: tuple[str, int]) -> bool:
    """
    Print the state of a running daemon, if there is one: it may fail although the other
    checks succeed. Return the result of the check.

    Args:
        bind: The host and port of the daemon, from the settings that it shares with
            this process.
    """
    host = bind[0] or "localhost"
    try:
        said = _ask_daemon(host, bind[1])
    except TimeoutError:
        say(
            "FAIL",
            "daemon",
            f"accepts connections at {host}:{bind[1]} but does not answer",
        )
        say("", "", "It is stopped or hangs. Check its log, then restart it.")
        return False
    if "published_seconds_ago" not in said:  # it is no daemon of ours
        return True
    reason = said["reason"]
    is_calm = said["ready"] and reason in CALM
    is_good = said["alive"] and not said["shortfall"] and (is_calm or not reason)
    if is_calm:
        say("??", "daemon", f"{reason}: {said['error']}")
    elif reason:
        fail("daemon", SidecarError(reason, said["error"], said["advice"]))
    if said["since"]:
        say("", "", f"Since {said['since']}.")
    if said["until"]:
        what = "Tries again at" if said["result"] == "failed" else "Waits until"
        say("", "", f"{what} {said['until']}.")
    if said["shortfall"]:
        say("" if reason and not is_calm else "FAIL", "daemon", said["shortfall"])
    if not said["alive"]:
        say("FAIL", "daemon", "is not alive: restart it")
    if is_good and not is_calm:
        say("ok", "daemon", f"published: {said['revision']}")
    return bool(is_good)


def _ask_daemon(host: str, port: int) -> dict[str, Any]:
    """
    Return the daemon's answer; empty if nothing answers, or not with a JSON object.
    HTTP/1.0 makes any server close the connection after its answer.

    Raises:
        TimeoutError: The daemon accepts the connection, but does not answer.
    """
    try:
        with socket.create_connection((host, port), ANSWER_SECONDS) as connection:
            connection.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
            # it closes the connection
            answer = connection.makefile("rb").read(ANSWER_BYTES)
            said = json.loads(answer.partition(b"\r\n\r\n")[2])
    except TimeoutError:
        raise
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def exit_code(results: Iterable[bool]) -> int:
    """
    Return the exit code for the results of all checks.
    """
    return EXIT_DONE if all(results) else EXIT_GAVE_UP
