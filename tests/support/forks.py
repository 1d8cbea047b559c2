"""
Sidecars in processes that are forked after the imports, which take most of a start.

What is done before the imports is done in the fork.
"""

import functools
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import botocore.session
from botocore.retries import standard

import sidecar_runtime
from sidecar_runtime import aws, begin_process
from tests import ROOT, Texts

PACKAGES = {
    "s3-sync": "s3_sync",
    "sync-perm": "sync_perm",
    "git-sync-wrapper": "git_sync_wrapper",
}
# What these change is done before the imports, or by them.
EARLIER = ("LD_", "PYTHON", "SIDECAR_")
ORDER_BYTES = 200_000
is_real = True
"""Whether every program is started as users start it; not in tests without `--full`."""


class ForkServer:
    """
    The process that has imported the sidecars; its children are those of the tests.
    """

    def __init__(self) -> None:
        self._orders, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__], cwd=ROOT, stdin=theirs.fileno()
        )
        theirs.close()

    def ask(self, order: Any, files: Sequence[int] = ()) -> int:
        """
        Fork (given a command and its environment) and return the id; or reap this id,
        and return the exit code.
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
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        outputs: Sequence[int],
    ) -> None:
        self.pid = server().ask((command, environment), outputs)
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
            os.kill(self.pid, signal.SIGKILL)


def start(
    command: Sequence[str], environment: Mapping[str, str], outputs: Sequence[int]
) -> Forked | subprocess.Popen[bytes]:
    """
    Start a command, as a fork if that is like a start of its program.

    Args:
        outputs: Files for its standard output and error; they are closed here.
    """
    program = Path(command[0])
    is_ours = program.name in PACKAGES and program.parent == Path(sys.executable).parent
    is_plain = not any(name.startswith(EARLIER) for name in environment)
    process: Forked | subprocess.Popen[bytes]
    if is_ours and is_plain and not is_real:
        process = Forked(command, environment, outputs)
    else:
        process = subprocess.Popen(
            command,
            env=environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=outputs[0],
            stderr=outputs[1],
        )
    for output in outputs:
        os.close(output)
    return process


class Command:
    """
    A command that is run to its end; then `out` and `err` are what it said.
    """

    out = err = ""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._outputs = [os.memfd_create("output") for _ in range(2)]
        self._process = start(command, environment, [*map(os.dup, self._outputs)])
        self.pid = self._process.pid

    def wait(self) -> int:
        """
        Wait until it ends; return its exit code, or minus the signal that killed it.
        """
        code = self._process.wait(120)
        self.out, self.err = map(_content, self._outputs)
        return code


def _content(file: int) -> str:
    os.lseek(file, 0, os.SEEK_SET)
    with open(file) as stream:
        return stream.read()


def _serve(orders: socket.socket) -> None:
    for package in PACKAGES.values():
        import_module(f"{package}.__main__")
    import_module("sidecar_runtime.aws.chain")
    import_module("s3_sync.publisher.cli")
    # botocore's model of S3 is read once for all commands
    botocore.session.create_loader = functools.cache(botocore.session.create_loader)
    botocore.session.Session().create_client("s3", region_name="us-east-1")
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


def _become(outputs: Sequence[int], command: list[str], environment: Texts) -> NoReturn:
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, file in enumerate((nothing, *outputs)):
        os.dup2(file, number)
    os.closerange(3, 100)
    # those of the server may have been files
    sys.stdout = open(1, "w")  # noqa: SIM115
    sys.stderr = open(2, "w", 1, errors="backslashreplace")  # noqa: SIM115
    os.chdir("/")
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = command
    sidecar_runtime.SIGNALS_READ, sidecar_runtime.SIGNALS_WRITE = os.pipe()
    begin_process()
    program, *arguments = command
    if arguments[:1] not in ([], ["check"]):
        # botocore repeats at once what it would repeat after up to 15 s
        standard.ExponentialBackoff.delay_amount = lambda self, context: 0  # type: ignore[method-assign]
    elif "AWS_SECRET_ACCESS_KEY" in environment:
        for _ in ("the keys", *arguments):  # `check` also asks who it is
            aws.EARLY.append(aws.start_child(is_fork=True))
    import_module(f"{PACKAGES[Path(program).name]}.__main__").main()
    raise AssertionError("it ends by itself")


if __name__ == "__main__":
    _serve(socket.socket(fileno=0))
    # how many are left over
    sys.exit(len(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()))
