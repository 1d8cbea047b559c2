"""
A process that ends: its output as it comes, its deadline, its whole group killed at the end.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from sidecar_runtime.fence import Fence

TICK_SECONDS = 0.2
# A longer line comes in pieces; a report of sync-perm's takes tens of thousands.
LINE_BYTES = 1 << 20
REAP_SECONDS = 1.0
PIPE_BYTES = 65536
"""What a pipe holds (pipe(7)): what is left when its writer has ended is read at once."""

Say = Callable[[str], None]


class DeadlinePassed(Exception):
    """
    The process did not end in time, and was killed.
    """


@dataclass(frozen=True, slots=True)
class Ended:
    """
    How a process ended.

    Args:
        code: The exit code; a negative one is the signal that killed it.
        cpu_seconds: User and system time, also of children that it waited for.
    """

    code: int
    seconds: float
    cpu_seconds: float


def run(
    command: Sequence[str],
    environ: Mapping[str, str],
    folder: str,
    *,
    fence: Fence,
    deadline_seconds: float,
    out: Say,
    err: Say,
    watch: Callable[[], None],
) -> Ended:
    """
    Run a program in a session of its own, and leave nothing of it behind.

    Args:
        folder: Its working directory.
        out: Gets each line of standard output, `err` those of standard error.
        watch: Called several times a second; what it raises ends the process.

    Raises:
        OSError: The program cannot be started.
        DeadlinePassed: It took too long.
        CycleAbandoned: The fence was revoked before the start; revoked later, it kills.
    """
    started = time.monotonic()
    with fence:
        process = subprocess.Popen(
            command,
            env=dict(environ),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    assert process.stdout is not None and process.stderr is not None
    with process.stdout, process.stderr:
        fence.on_revoke(lambda: _kill_group(process))
        try:
            lines = {process.stdout.fileno(): _Lines(out), process.stderr.fileno(): _Lines(err)}
            _listen(process.pid, lines, started + deadline_seconds, watch)
        finally:
            _kill_group(process)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            reap_group(process.pid)
    seconds = time.monotonic() - started
    return Ended(process.returncode, seconds, usage.ru_utime + usage.ru_stime)


def reap_group(group: int) -> None:
    """
    Wait for what a killed group left to us: as process 1 we inherit its children.

    One that the kernel does not let go of is not waited for longer than a second.
    """
    until = time.monotonic() + REAP_SECONDS
    with suppress(ChildProcessError):
        while time.monotonic() < until:
            if os.waitpid(-group, os.WNOHANG) == (0, 0):
                time.sleep(0.01)


class _Lines:
    """
    Cuts what comes into lines; an endless one into pieces.
    """

    def __init__(self, say: Say) -> None:
        self._say = say
        self._rest = b""

    def add(self, chunk: bytes) -> None:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > LINE_BYTES:
            lines, self._rest = [*lines, self._rest], b""
        for line in lines:
            self._say(line.decode(errors="replace").rstrip())

    def end(self) -> None:
        if self._rest:
            self._say(self._rest.decode(errors="replace").rstrip())


def _listen(pid: int, lines: Mapping[int, _Lines], until: float, watch: Callable[[], None]) -> None:
    """
    Hand on what the process says until it has ended, whoever else still holds its pipes.
    """
    with selectors.DefaultSelector() as selector:
        for fd in lines:
            os.set_blocking(fd, False)
            selector.register(fd, selectors.EVENT_READ)
        has_ended = False
        while not has_ended:
            has_ended = _has_ended(pid)
            _read(selector, lines, 0.0 if has_ended else TICK_SECONDS)
            watch()
            if not has_ended and time.monotonic() > until:
                raise DeadlinePassed
    for rest in lines.values():
        rest.end()


def _read(
    selector: selectors.BaseSelector, lines: Mapping[int, _Lines], timeout_seconds: float
) -> None:
    """
    Read what is there, after waiting for the first of it, but once: it may never end.
    """
    if not selector.get_map():
        time.sleep(timeout_seconds)  # it closed its output, and goes on
    for key, _ in selector.select(timeout_seconds):
        with suppress(BlockingIOError):
            if chunk := os.read(key.fd, PIPE_BYTES):
                lines[key.fd].add(chunk)
            else:
                selector.unregister(key.fd)


def _has_ended(pid: int) -> bool:
    """
    Tell whether the process has ended, and leave it to be waited for: its id stays its own.
    """
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
