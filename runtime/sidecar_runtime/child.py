"""
Runs a program until it ends, and leaves no process of it running; and a private folder,
for what such a program reads.
"""

import fcntl
import glob
import os
import selectors
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO

from sidecar_runtime.errors import explain
from sidecar_runtime.fence import CycleAbandoned, Fence

TICK_SECONDS = 0.2
# A program closes its output a moment before it ends; what does so earlier, such as a
# daemon, is looked at twice as seldom each time.
CLOSED_TICK_SECONDS = 0.0005
# A longer line is split; a report of sync-perm has tens of thousands of bytes.
LINE_BYTES = 1 << 20
# Limit for an answer, because a program's output may be endless.
KEPT_BYTES = 64 << 10
REAP_SECONDS = 1.0
PIPE_BYTES = 65536
"""
Capacity of a pipe (pipe(7)): one read returns all that an ended writer left in it.
"""

Hear = Callable[[bytes], object]
"""Receives output in pieces of any size; an empty one is the end."""
Hears = Sequence[Hear | None]
"""Of standard output, and of standard error if it is a pipe of its own."""
Watch = Callable[[], object]
Process = subprocess.Popen[bytes]
# Whether a child has ended; it stays to be waited for.
_UNREAPED = os.WEXITED | os.WNOHANG | os.WNOWAIT

# The children that a thread waits for, and the lock under which one is started.
_attended: set[int] = set()
_starting = threading.Lock()


class DeadlinePassed(Exception):
    """
    The program did not end in time and was killed.
    """


@dataclass(frozen=True)
class Command:
    """
    A program to run.

    Args:
        title: What it is called while it runs; empty: by its file's name.
        environ: Its whole environment.
        folder: Its working directory.
        given: Its standard input.
    """

    argv: Sequence[str]
    environ: Mapping[str, str] = field(repr=False)
    folder: str = "."
    given: bytes = field(default=b"", repr=False)
    title: str = ""


class Kept:
    """
    Keeps the end of an output, or its beginning.
    """

    def __init__(self, limit_bytes: int = KEPT_BYTES, *, is_head: bool = False) -> None:
        self._kept = slice(limit_bytes) if is_head else slice(-limit_bytes, None)
        self.data = b""

    def __call__(self, chunk: bytes) -> None:
        self.data = (self.data + chunk)[self._kept]

    def __str__(self) -> str:
        return self.data.decode(errors="replace").rstrip()


class Lines:
    """
    Passes on each line of an output, without its end; an overlong one in pieces.
    """

    def __init__(self, say: Callable[[str], object]) -> None:
        self._say = say
        self._rest = b""

    def __call__(self, chunk: bytes) -> None:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if self._rest and (not chunk or len(self._rest) > LINE_BYTES):
            lines = [*lines, self._rest]
            self._rest = b""
        for line in lines:
            self._say(line.decode(errors="replace").rstrip())


def run(
    command: Command,
    fence: Fence,
    deadline_seconds: float,
    out: Hear,
    err: Hear | None = None,
    watch: Watch = lambda: None,
) -> int:
    """
    Run a program in its own session until it ends; return its exit code, which is
    negative if a signal killed it. Whatever is left of its process group is killed at
    every end.

    Args:
        err: Receives standard error; None: `out` receives it, too.
        watch: Called several times a second; an exception that it raises ends the
            program.

    Raises:
        OSError: The program cannot be started.
        SidecarError: No program can be started: a limit of processes is reached.
        DeadlinePassed: It took too long.
        CycleAbandoned: The fence was revoked; then nothing is started, or the program
            was killed.
    """
    with _readable(command.given) as given, fence, _starting:
        try:
            process = subprocess.Popen(
                command.argv,
                env=command.environ,
                cwd=command.folder,
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if err is None else subprocess.PIPE,
                start_new_session=True,
            )
        except BlockingIOError as error:  # it says nothing about this program
            raise explain(error) from error
        _attended.add(process.pid)
    with fence.waiting(command.title or os.path.basename(command.argv[0])):
        return attend(process, fence, deadline_seconds, (out, err), watch)


def attend(
    process: Process, fence: Fence, seconds: float, hears: Hears, watch: Watch
) -> int:
    """
    As :func:`run`, for a program that was started in its own session.
    """
    until = time.monotonic() + seconds
    _attended.add(process.pid)

    def kill() -> None:
        # once it is reaped, its id may belong to another process
        if process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)

    with process:  # which closes the pipes
        fence.on_revoke(kill)
        try:
            _listen(process, hears, until, watch)
        finally:
            kill()
            process.wait()
            fence.forget(kill)
            _attended.discard(process.pid)
            _reap_group(process.pid)
            _reap_strays()
    if fence.is_revoked:
        raise CycleAbandoned
    return process.returncode


def ending(code: int) -> str:
    """
    Describe how a program ended.
    """
    return f"exit code {code}" if code >= 0 else f"signal {-code}"


def last_line(said: str) -> str:
    """
    Return the last line of an output, which says why a program has failed.
    """
    return said.strip().rpartition("\n")[2].strip()


def _readable(data: bytes) -> IO[bytes]:
    """
    Return an open file in memory, so that the program reads as much as it likes, when
    it likes.
    """
    file = os.fdopen(os.memfd_create("input"), "w+b")
    file.write(data)
    file.seek(0)
    return file


def _listen(process: Process, hears: Hears, until: float, watch: Watch) -> None:
    """
    Pass on output until the process ends, even if another process still holds its
    pipes.
    """
    with selectors.DefaultSelector() as selector:
        for stream, hear in zip((process.stdout, process.stderr), hears, strict=True):
            if stream:
                selector.register(stream, selectors.EVENT_READ, hear)
        has_ended = False
        closed_tick = CLOSED_TICK_SECONDS
        while not has_ended:
            # It is not reaped, so that its id is not reused.
            has_ended = os.waitid(os.P_PID, process.pid, _UNREAPED) is not None
            tick = TICK_SECONDS
            if not selector.get_map():
                tick = min(closed_tick, TICK_SECONDS)
                closed_tick *= 2
            for key, _ in selector.select(0.0 if has_ended else tick):
                chunk = os.read(key.fd, PIPE_BYTES)
                if chunk:
                    key.data(chunk)
                else:
                    selector.unregister(key.fileobj)
            watch()
            if not has_ended and time.monotonic() > until:
                raise DeadlinePassed
    for hear in filter(None, hears):
        hear(b"")


def _reap_group(group: int) -> None:
    """
    Reap the orphans of a killed group, which this process inherits if it is process 1.

    Stops after ``REAP_SECONDS``, because a process that is stuck in the kernel may not
    end.
    """
    until = time.monotonic() + REAP_SECONDS
    with suppress(ChildProcessError):
        while time.monotonic() < until:
            if os.waitpid(-group, os.WNOHANG) == (0, 0):
                time.sleep(0.01)


def _reap_strays() -> None:
    """
    Reap what left the session of its program and has ended since, such as a hook's
    daemon: only process 1 inherits it, and nobody else waits for it.
    """
    if os.getpid() != 1:
        return
    with _starting, suppress(ChildProcessError):
        while ended := os.waitid(os.P_ALL, 0, _UNREAPED):
            if ended.si_pid in _attended:
                break  # its own thread waits for it
            os.waitpid(ended.si_pid, 0)


# --- the private folder

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


class PrivateFolder:
    """
    A folder with mode 0700 in `parent`; folders of killed processes, which no longer
    hold a ``flock`` on them, are removed.

    Args:
        prefix: The start of its name, and of the names of leftovers.

    Raises:
        OSError: It cannot be created.
    """

    def __init__(self, prefix: str, parent: str) -> None:
        for path in glob.glob(os.path.join(glob.escape(parent), f"{prefix}*")):
            with suppress(OSError):
                _remove_leftover(path)
        # An unpredictable name, so no other process can take it first.
        new = tempfile.mkdtemp(prefix=".", dir=parent)
        self._lock = os.open(new, _FOLDER)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        # Renamed once it is locked: until then, a process that starts now would remove
        # it.
        self.path = os.path.join(parent, prefix + os.path.basename(new)[1:])
        os.rename(new, self.path)

    def remove(self) -> None:
        """
        Remove it with its content.
        """
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def parent_folder() -> str:
    """
    Return TMPDIR or /tmp; where neither can be written, because the root is read-only
    and nothing is mounted there, /dev/shm, which a container always has.
    """
    places = (os.environ.get("TMPDIR", ""), "/tmp", "/dev/shm")  # noqa: S108 - the folder is private
    return next(
        (path for path in places if os.access(path, os.W_OK | os.X_OK)), places[1]
    )


def _remove_leftover(path: str) -> None:
    lock = os.open(path, _FOLDER)
    try:
        if os.fstat(lock).st_uid == os.getuid():
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(lock)
