"""
Servers that are programs, each on a port of its own.
"""

from __future__ import annotations

import atexit
import contextlib
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.waiting import wait_until

START_SECONDS = 60.0


def keep_port(host: str, port: int = 0) -> socket.socket:
    """
    Return a socket that keeps a port from everyone who asks for any; nothing listens there yet.

    A server that gets the number may, and again after an outage: servers set SO_REUSEADDR.

    Args:
        port: 0 = choose one.
    """
    kept = socket.socket()
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    kept.bind((host, port))
    return kept


def own_port(host: str = "127.0.0.1", *, udp: bool = False) -> int:
    """
    Return a port that nobody else is given until this process ends.

    Connections are refused until a program listens there that gets the number.

    Args:
        udp: It is free for datagrams, too, as of now.
    """
    while True:
        kept = keep_port(host)
        atexit.register(kept.close)
        port: int = kept.getsockname()[1]
        with socket.socket(type=socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
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
        log: Where its output goes, after what is there.
        answers: Whether it answers; may raise OSError while it does not.
        environment: All that it gets; None = what the tests have.
        options: Of `subprocess.Popen`.

    Raises:
        AssertionError: It never answers, or has ended; the end of its log is the text.
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
        assert process.poll() is None, f"{command[0]} has ended: {log.read_text()[-2000:]}"
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
    Whether a server takes connections.

    Raises:
        OSError: None does.
    """
    socket.create_connection((host, port), timeout=1).close()
    return True
