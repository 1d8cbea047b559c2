"""
A process that ends: its output as it comes, or its answer; nothing of it is left running.

:func:`run` hands on lines, :func:`ask` puts a question and keeps the answer. Both start it in a
session of its own, kill its whole group at the end, and kill it at once when the fence is revoked.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import IO, NamedTuple, TypeAlias, cast

from sidecar_runtime.fence import CycleAbandoned, Fence

TICK_SECONDS = 0.2
# Its pipes close a moment before it has ended.
CLOSED_TICK_SECONDS = 0.01
# A longer line comes in pieces; a report of sync-perm's takes tens of thousands.
LINE_BYTES = 1 << 20
# Of an answer; a program may say anything, indefinitely.
KEPT_BYTES = 64 << 10
REAP_SECONDS = 1.0
PIPE_BYTES = 65536
"""What a pipe holds (pipe(7)): what is left when its writer has ended is read at once."""

Say = Callable[[str], None]
Hear = Callable[[bytes], None]
Process: TypeAlias = "subprocess.Popen[bytes]"
Move = Callable[[int], bool]
"""Moves bytes from or to a pipe; tells whether more may follow."""


class DeadlinePassed(Exception):
    """
    The process did not end in time, and was killed.
    """


class Ended(NamedTuple):
    """
    How a process ended.

    Args:
        code: The exit code; a negative one is the signal that killed it.
        cpu_seconds: User and system time, also of children that it waited for.
    """

    code: int
    seconds: float
    cpu_seconds: float


def start(command: Sequence[str], environ: Mapping[str, str], folder: str) -> Process:
    """
    Start a program ahead of a :func:`run`, which takes it, or :func:`end`, which ends it.

    Raises:
        OSError: It cannot be started.
    """
    return subprocess.Popen(
        command,
        env=environ,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def end(process: Process) -> None:
    """
    End a process and its group, and reap it.
    """
    _kill_group(process)
    process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def run(
    command: Sequence[str],
    environ: Mapping[str, str],
    folder: str,
    *,
    fence: Fence,
    deadline_seconds: float,
    out: Say,
    err: Say,
    watch: Callable[[], None] = lambda: None,
    started: Callable[[], Process | None] = lambda: None,
) -> Ended:
    """
    Run a program and hand on what it says, line by line.

    Args:
        folder: Its working directory.
        out: Gets each line of standard output, `err` those of standard error.
        watch: Called several times a second; what it raises ends the process.
        started: Returns the process where it was started before.

    Raises:
        OSError: The program cannot be started.
        DeadlinePassed: It took too long.
        CycleAbandoned: The fence was revoked before the start; revoked later, it kills.
    """
    lines = _Lines(out), _Lines(err)
    ended = _converse(
        command,
        environ,
        folder,
        fence=fence,
        deadline_seconds=deadline_seconds,
        hears=[rest.add for rest in lines],
        watch=watch,
        started=started,
    )
    for rest in lines:
        rest.end()
    return ended


def ask(
    command: Sequence[str],
    environ: Mapping[str, str],
    folder: str,
    *,
    question: bytes,
    fence: Fence,
    deadline_seconds: float,
    is_head_kept: bool = False,
) -> tuple[bytes, int]:
    """
    Run a program; return what is kept of its output, with that of standard error, and its code.

    Args:
        folder: Its working directory.
        question: Its standard input.
        is_head_kept: Whether the beginning of a long output counts, and not its end.

    Raises:
        OSError: The program cannot be started.
        DeadlinePassed: It took too long.
        CycleAbandoned: The fence was revoked, before the start or later.
    """
    kept = b""

    def keep(chunk: bytes) -> None:
        nonlocal kept
        kept += chunk
        kept = kept[:KEPT_BYTES] if is_head_kept else kept[-KEPT_BYTES:]

    ended = _converse(
        command,
        environ,
        folder,
        fence=fence,
        deadline_seconds=deadline_seconds,
        question=question,
        hears=[keep],
    )
    if fence.is_revoked:
        raise CycleAbandoned
    return kept, ended.code


def ending(code: int) -> str:
    """
    Return how a process ended, in words.
    """
    return f"exit code {code}" if code >= 0 else f"signal {-code}"


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


def _converse(
    command: Sequence[str],
    environ: Mapping[str, str],
    folder: str,
    *,
    fence: Fence,
    deadline_seconds: float,
    question: bytes | None = None,
    hears: Sequence[Hear],
    watch: Callable[[], None] = lambda: None,
    started: Callable[[], Process | None] = lambda: None,
) -> Ended:
    """
    Run a program in a session of its own, from its start until its whole group is reaped.

    Args:
        question: Its standard input; None for an empty one.
        hears: Who gets standard output and standard error; one gets both.

    Raises:
        OSError: The program cannot be started.
        DeadlinePassed: It took too long.
        CycleAbandoned: The fence was revoked before the start; revoked later, it kills.
    """
    began = time.monotonic()
    with fence:
        process = started() or subprocess.Popen(
            command,
            env=environ,
            cwd=folder,
            stdin=subprocess.DEVNULL if question is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if len(hears) > 1 else subprocess.STDOUT,
            start_new_session=True,
        )

    def kill() -> None:
        _kill_group(process)

    fence.on_revoke(kill)
    try:
        _pump(process, question or b"", hears, began + deadline_seconds, watch)
    finally:
        _kill_group(process)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        fence.forget(kill)
        _reap_group(process.pid)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()
    seconds = time.monotonic() - began
    return Ended(process.returncode, seconds, usage.ru_utime + usage.ru_stime)


def _pump(
    process: subprocess.Popen[bytes],
    question: bytes,
    hears: Sequence[Hear],
    until: float,
    watch: Callable[[], None],
) -> None:
    """
    Carry bytes in and out until the process has ended, whoever else still holds its pipes.
    """
    with selectors.DefaultSelector() as selector:
        if process.stdin is not None:
            os.set_blocking(process.stdin.fileno(), False)
            selector.register(process.stdin, selectors.EVENT_WRITE, _writer(question))
        for stream, hear in zip((process.stdout, process.stderr), hears, strict=False):
            assert stream is not None
            os.set_blocking(stream.fileno(), False)
            selector.register(stream, selectors.EVENT_READ, _reader(hear))
        has_ended = False
        while not has_ended:
            has_ended = _has_ended(process.pid)
            _move(selector, 0.0 if has_ended else _wait_seconds(selector, until))
            watch()
            if not has_ended and time.monotonic() > until:
                raise DeadlinePassed


def _wait_seconds(selector: selectors.BaseSelector, until: float) -> float:
    tick = TICK_SECONDS if selector.get_map() else CLOSED_TICK_SECONDS
    return min(tick, max(0.0, until - time.monotonic()))


def _move(selector: selectors.BaseSelector, timeout_seconds: float) -> None:
    """
    Move what can be moved, after waiting for the first of it, but once: it may never end.
    """
    for key, _ in selector.select(timeout_seconds):
        with suppress(BlockingIOError):
            if not key.data(key.fd):
                selector.unregister(key.fileobj)
                cast(IO[bytes], key.fileobj).close()


def _reader(hear: Hear) -> Move:
    def read(fd: int) -> bool:
        chunk = os.read(fd, PIPE_BYTES)
        hear(chunk)
        return bool(chunk)

    return read


def _writer(question: bytes) -> Move:
    rest = memoryview(question)

    def write(fd: int) -> bool:
        nonlocal rest
        with suppress(BrokenPipeError):
            rest = rest[os.write(fd, rest[:PIPE_BYTES]) :]
            return bool(rest)
        return False

    return write


def _has_ended(pid: int) -> bool:
    """
    Tell whether the process has ended, and leave it to be waited for: its id stays its own.
    """
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    if process.returncode is None:  # after that the number may be another's
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def _reap_group(group: int) -> None:
    """
    Wait for what a killed group left to us: as process 1 we inherit its children.

    One that the kernel does not let go of is not waited for longer than a second.
    """
    until = time.monotonic() + REAP_SECONDS
    with suppress(ChildProcessError):
        while time.monotonic() < until:
            if os.waitpid(-group, os.WNOHANG) == (0, 0):
                time.sleep(0.01)
