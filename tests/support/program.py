"""
Servers that are separate programs, each on its own port.
"""

import atexit
import contextlib
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from tests.support.machine.clocks import forget_clock
from tests.support.waiting import wait_until

START_SECONDS = 60.0


class Program:
    """
    A server, started by `start` or by a `with` statement.

    `stop` followed by `start` is an outage: the same address answers again, with the
    same data unless it was only in memory.
    """

    _process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """
        Start answering; a later start uses the same port.
        """
        raise NotImplementedError

    def stop(self) -> None:
        """
        Kill it, if it runs: from now on, connections are refused.
        """
        if self._process:
            self._process.kill()
            self._process.wait()
            forget_clock(self._process.pid)
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def keep_port(host: str, port: int = 0) -> socket.socket:
    """
    Return a socket that reserves a port; nothing listens there yet.

    Servers set SO_REUSEADDR, so they can still use the port, even after an outage.

    Args:
        port: 0 = choose a free port.
    """
    kept = socket.socket()
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    kept.bind((host, port))
    return kept


def own_port(host: str = "127.0.0.1", *, udp: bool = False) -> int:
    """
    Return a port that is reserved until this process ends.

    Connections are refused until a server listens there.

    Args:
        udp: Whether it must also be free for UDP at this moment.
    """
    while True:
        kept = keep_port(host)
        atexit.register(kept.close)
        port: int = kept.getsockname()[1]
        with (
            socket.socket(type=socket.SOCK_DGRAM) as probe,
            contextlib.suppress(OSError),
        ):
            if udp:
                probe.bind((host, port))
            return port


def start_server(
    command: Sequence[str | Path],
    log: Path,
    answers: Callable[[], bool],
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> subprocess.Popen[bytes]:
    """
    Start a server, and wait until it answers.

    Args:
        log: The file to which its output is appended.
        answers: Whether the server answers; may raise OSError while it does not.
        environment: Its complete environment; None = that of the tests.
        options: Options of `subprocess.Popen`.

    Raises:
        AssertionError: It does not answer in time, or has ended (with the end of its
            log).
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            **options,
        )

    def does_answer() -> bool:
        assert process.poll() is None, (
            f"{command[0]} has ended: {log.read_text()[-2000:]}"
        )
        with contextlib.suppress(OSError):
            return answers()
        return False

    try:
        wait_until(does_answer, f"{command[0]} answers", START_SECONDS)
    except BaseException:
        process.kill()
        process.wait()
        raise
    return process


def listens(host: str, port: int) -> bool:
    """
    Whether a server accepts connections.

    Raises:
        OSError: The connection fails.
    """
    socket.create_connection((host, port), timeout=1).close()
    return True
