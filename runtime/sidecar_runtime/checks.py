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


class Checks:
    """
    One run of a ``check``: what it prints, and its exit code.

    Args:
        names: Variables with our prefix that are not settings: they are printed first,
            with the entries of NO_PROXY that have no meaning.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.exit_code = EXIT_DONE
        self._said_at = time.monotonic()
        for name in names:
            self.say("??", "settings", f"{name} is not a setting")
        for name, why in proxies.ignored(os.environ).items():
            self.say("??", "settings", f"{name}: {why}")

    def say(self, mark: Literal["ok", "??", "FAIL", ""], name: str, text: str) -> None:
        """
        Print one line.

        Args:
            mark: ``FAIL``: then the run fails. ``??``: needs attention, but is not a
                failure. Empty: continues the line above.
            text: May be untrusted: characters that could control a terminal are
                escaped.
        """
        if mark == "FAIL":
            self.exit_code = EXIT_GAVE_UP
        now = time.monotonic()
        seconds = now - self._said_at
        self._said_at = now
        took = f" (took {seconds:.1f} s)" if seconds > SLOW_SECONDS else ""
        words = f"{mark:<5} {printable(name):<14} {printable(text)}"
        sys.stdout.write(f"  {words}{took}\n")
        sys.stdout.flush()

    def ok(self, name: str, text: str) -> None:
        """
        Print a check that succeeded.
        """
        self.say("ok", name, text)

    def add(self, text: str) -> None:
        """
        Print a line that continues the one above.
        """
        self.say("", "", text)

    def fail(self, name: str, error: SidecarError) -> None:
        """
        Print a failure and its advice.
        """
        self.say("FAIL", name, f"{error.reason}: {error.message}")
        if error.advice:
            self.add(error.advice)

    def try_folder(
        self,
        name: str,
        path: str,
        *,
        needs_symlinks: bool,
        needed_bytes: int = TRIED_BYTES,
    ) -> None:
        """
        Print that a folder is writable or can be created, and has room for so much.

        Nothing is left behind, also if the check is killed while it waits for the disk:
        what it writes has no name then.

        Raises:
            TargetError: The folder is not writable, or its file system lacks what a
                sidecar needs.
        """
        with explained(f"cannot write to {path}"):
            folder = nearest_folder(path)
            with TemporaryFile(dir=folder, prefix=".check-") as file:
                take_flock(file.fileno())
                # a full volume still takes an empty file
                file.write(bytes(needed_bytes))
                file.flush()
                os.fsync(file.fileno())
            if needs_symlinks:
                symlink = f"{folder}/.check-{time.time_ns()}"
                make_symlink("nowhere", symlink)
                os.unlink(symlink)
            free = shutil.disk_usage(folder).free >> 20
        made = "" if folder == path else " (the daemon will create it)"
        self.say(
            "ok" if free else "??",
            name,
            f"{path}{made} is writable as uid {os.getuid()}, {free} MiB free",
        )

    def try_gate(self, gate: Gate | None, name: str, fence: Fence) -> None:
        """
        Print whether the gate can run, by having it judge a folder with a DAG that does
        nothing.

        It does not judge the source, which only a daemon has on disk; the daemon
        reports those verdicts.

        Args:
            name: The kind of gate, as in the settings.

        Raises:
            CycleAbandoned: The fence was revoked.
        """
        if gate is None:
            self.ok("gate", "off")
            return
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
            self.fail("gate", error)
            return
        said = f"{name}: tried without the source, which only a daemon judges"
        self.ok("gate", said)
        if refusal:
            said = (
                f"it refuses a folder with a DAG that does nothing: {refusal.message}"
            )
            self.say("??", "", said)

    def daemon(self, bind: tuple[str, int]) -> None:
        """
        Print the state of a running daemon, if there is one: it may fail although the
        other checks succeed.

        Args:
            bind: The host and port of the daemon, from the settings that it shares with
                this process.
        """
        host = bind[0] or "localhost"
        try:
            said = _ask_daemon(host, bind[1])
        except TimeoutError:
            place = f"{host}:{bind[1]}"
            self.say("FAIL", "daemon", f"listens at {place} but does not answer")
            self.add("It is stopped or hangs. Check its log, then restart it.")
            return
        if "published_seconds_ago" not in said:  # it is no daemon of ours
            return
        reason = said["reason"]
        is_calm = said["ready"] and reason in CALM
        is_told = reason and not is_calm
        if is_told:
            self.fail("daemon", SidecarError(reason, said["error"], said["advice"]))
        elif is_calm:
            self.say("??", "daemon", f"{reason}: {said['error']}")
        if said["since"]:
            self.add(f"Since {said['since']}.")
        if said["until"]:
            what = "Tries again at" if said["result"] == "failed" else "Waits until"
            self.add(f"{what} {said['until']}.")
        if said["shortfall"]:
            self.say("" if is_told else "FAIL", "daemon", said["shortfall"])
        if not said["alive"]:
            self.say("FAIL", "daemon", "is not alive: restart it")
        elif not (reason or said["shortfall"]):
            self.ok("daemon", f"published: {said['revision']}")


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
