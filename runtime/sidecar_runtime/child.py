"""
Runs a child process until it ends, and leaves no process of it running.

:func:`run` passes on output lines, :func:`ask` writes input and keeps the output. Both start the
child in its own session, kill its whole process group at the end, or as soon as the fence is
revoked.
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
# A process closes its pipes a moment before it ends.
CLOSED_TICK_SECONDS = 0.01
# A longer line is split; a report of sync-perm has tens of thousands of bytes.
LINE_BYTES = 1 << 20
# Limit for an answer, because a program's output may be endless.
KEPT_BYTES = 64 << 10
REAP_SECONDS = 1.0
PIPE_BYTES = 65536
"""Capacity of a pipe (pipe(7)): one read returns all that an ended writer left in it."""

Say = Callable[[str], None]
Hear = Callable[[bytes], None]
Spend = Callable[[float], None]
"""Receives the CPU seconds of a process, user and system, including children it waited for."""
Process: TypeAlias = "subprocess.Popen[bytes]"
Move = Callable[[int], bool]
"""Moves bytes from or to a pipe; returns whether more may follow."""


class DeadlinePassed(Exception):
    """
    The process did not end in time and was killed.
    """


class Ended(NamedTuple):
    """
    How a process ended.

    Args:
        code: The exit code; if negative, the number of the signal that killed it.
    """

    code: int
    seconds: float


def start(command: Sequence[str], environ: Mapping[str, str], folder: str) -> Process:
    """
    Start a program early; a later :func:`run` takes it over, or :func:`end` kills it.

    Raises:
        OSError: The program cannot be started.
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
    Kill a process and its group, and reap it.
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
    spent: Spend = lambda _: None,
    started: Callable[[], Process | None] = lambda: None,
) -> Ended:
    """
    Run a program and pass on its output line by line.

    Args:
        folder: Its working directory.
        out: Receives each line of standard output; `err` receives standard error.
        watch: Called several times a second; an exception that it raises ends the process.
        spent: Called when the process has ended, also if it was killed.
        started: Returns the process if it was started early.

    Raises:
        OSError: The program cannot be started.
        DeadlinePassed: It took too long.
        CycleAbandoned: The fence was revoked before the start; a later revoke kills the process.
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
        spent=spent,
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
    is_error_apart: bool = False,
) -> tuple[bytes, int]:
    """
    Run a program; return its standard output and error, up to a limit, and its exit code.

    Args:
        folder: Its working directory.
        question: Its standard input.
        is_head_kept: Whether to keep the beginning of a long output instead of its end.
        is_error_apart: Whether to return the standard error only if the program fails.

    Raises:
        OSError: The program cannot be started.
        DeadlinePassed: It took too long.
        CycleAbandoned: The fence was revoked before the start or later.
    """
    kept = errors = b""

    def keep(chunk: bytes) -> None:
        nonlocal kept
        kept += chunk
        kept = kept[:KEPT_BYTES] if is_head_kept else kept[-KEPT_BYTES:]

    def keep_error(chunk: bytes) -> None:
        nonlocal errors
        errors = (errors + chunk)[-KEPT_BYTES:]

    ended = _converse(
        command,
        environ,
        folder,
        fence=fence,
        deadline_seconds=deadline_seconds,
        question=question,
        hears=[keep, keep_error] if is_error_apart else [keep],
    )
    if fence.is_revoked:
        raise CycleAbandoned
    return kept + (errors if ended.code else b""), ended.code


def ending(code: int) -> str:
    """
    Describe how a process ended.
    """
    return f"exit code {code}" if code >= 0 else f"signal {-code}"


class _Lines:
    """
    Splits output into lines, and an overlong line into pieces.
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
    spent: Spend = lambda _: None,
    started: Callable[[], Process | None] = lambda: None,
) -> Ended:
    """
    Run a program in its own session, from its start until its whole group is reaped.

    Args:
        question: Its standard input; None for an empty one.
        hears: The receivers of standard output and standard error; a single one receives both.

    Raises:
        OSError: The program cannot be started.
        DeadlinePassed: It took too long.
        CycleAbandoned: The fence was revoked before the start; a later revoke kills the process.
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
        spent(usage.ru_utime + usage.ru_stime)
    return Ended(process.returncode, time.monotonic() - began)


def _pump(
    process: subprocess.Popen[bytes],
    question: bytes,
    hears: Sequence[Hear],
    until: float,
    watch: Callable[[], None],
) -> None:
    """
    Move input and output until the process ends, even if another process still holds its pipes.
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
    Wait for a pipe to become ready, then serve each ready pipe once: output may be endless.
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
    Return whether the process has ended, without reaping it, so that its id is not reused.
    """
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    if process.returncode is None:  # once it is reaped, its id may belong to another process
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def _reap_group(group: int) -> None:
    """
    Reap the orphans of a killed group, which this process inherits if it is process 1.

    Stops after ``REAP_SECONDS``, because a process that is stuck in the kernel may not end.
    """
    until = time.monotonic() + REAP_SECONDS
    with suppress(ChildProcessError):
        while time.monotonic() < until:
            if os.waitpid(-group, os.WNOHANG) == (0, 0):
                time.sleep(0.01)
