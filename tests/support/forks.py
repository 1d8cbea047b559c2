"""
Sidecars in processes that are forked after the imports, which take most of a start.

What only a start of its own shows is a matter of `SidecarProcess.is_forked`.
"""

import functools
import gc
import json
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from tests import ROOT

PACKAGES = {
    "s3-sync": "s3_sync",
    "sync-perm": "sync_perm",
    "git-sync-wrapper": "git_sync_wrapper",
}
# What these change is done before the imports, or by them.
EARLIER = ("LD_", "PYTHON", "SIDECAR_")
ORDER_BYTES = 200_000


def can_fork(program: Path, environment: Mapping[str, str]) -> bool:
    """
    Whether a fork is like a start of this program.
    """
    is_ours = program == Path(sys.executable).with_name(program.name)
    is_plain = not any(name.startswith(EARLIER) for name in environment)
    return is_ours and program.name in PACKAGES and is_plain


class ForkServer:
    """
    The process that has imported the sidecars; its children are those of the tests.
    """

    def __init__(self) -> None:
        self._orders, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__], cwd=ROOT, stdin=theirs
        )
        theirs.close()

    def ask(self, order: Any, files: Sequence[int] = ()) -> int:
        """
        Fork (given a program, its arguments, its environment and its outputs) and return
        the id; or reap this id, and return the exit code.
        """
        with self._lock:
            socket.send_fds(self._orders, [json.dumps(order).encode()], files)
            return int(self._orders.recv(ORDER_BYTES))

    def end(self) -> int:
        """
        End the process, and return how many of its children are left over.
        """
        self._orders.close()
        return self._process.wait()


server = functools.cache(ForkServer)


class Forked:
    """
    A process of a sidecar, with what tests use of a `subprocess.Popen`.
    """

    returncode: int | None = None

    def __init__(
        self, program: Path, arguments: Sequence[str], environment: Mapping[str, str]
    ) -> None:
        out, to_out = os.pipe()
        err, to_err = os.pipe()
        order = (str(program), arguments, environment)
        self.pid = server().ask(order, (to_out, to_err))
        os.close(to_out)
        os.close(to_err)
        self.stdout = open(out, "rb")
        self.stderr = open(err, "rb")
        self._end = select.poll()
        self._pidfd = os.pidfd_open(self.pid)
        self._end.register(self._pidfd)

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            ended = self._end.poll(None if timeout is None else 1000 * timeout)
            if not ended:
                raise subprocess.TimeoutExpired("a sidecar", timeout or 0)
            self.returncode = server().ask(self.pid)
            os.close(self._pidfd)
        return self.returncode

    def poll(self) -> int | None:
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, 9)


def run(
    program: Path, arguments: Sequence[str], environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """
    Run a command to its end, as `subprocess.run` does.
    """
    if not can_fork(program, environment):
        command = [str(program), *arguments]
        return subprocess.run(
            command, env=environment, cwd="/", capture_output=True, text=True
        )
    process = Forked(program, arguments, environment)
    with process.stdout, process.stderr, ThreadPoolExecutor() as pool:
        out, err = pool.map(
            lambda stream: stream.read().decode(), (process.stdout, process.stderr)
        )
    return subprocess.CompletedProcess((), process.wait(), out, err)


def _serve(orders: socket.socket) -> None:
    for package in PACKAGES.values():
        import_module(f"{package}.__main__")
    import_module("sidecar_runtime.aws.chain")
    gc.freeze()
    while True:
        text, outputs, _, _ = socket.recv_fds(orders, ORDER_BYTES, 2)
        if not text:
            break
        order = json.loads(text)
        if isinstance(order, int):
            _, status = os.waitpid(order, 0)
            answer = os.waitstatus_to_exitcode(status)
        else:
            answer = os.fork()
            if not answer:
                _become(outputs, *order)
            for output in outputs:
                os.close(output)
        orders.send(str(answer).encode())


def _become(
    outputs: Sequence[int],
    program: str,
    arguments: list[str],
    environment: dict[str, str],
) -> NoReturn:
    from sidecar_runtime import aws, begin_process

    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, file in enumerate((nothing, *outputs)):
        os.dup2(file, number)
    os.closerange(3, 100)
    os.chdir("/")
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [program, *arguments]
    begin_process()
    if "AWS_SECRET_ACCESS_KEY" in environment:
        # `check` also asks who it is
        aws.EARLY.extend(
            aws.start_child(is_fork=True) for _ in range(1 + len(arguments))
        )
    import_module(f"{PACKAGES[Path(program).name]}.__main__").main()
    raise AssertionError("it ends by itself")


if __name__ == "__main__":
    _serve(socket.socket(fileno=0))
    left = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    sys.exit(len(left))
