"""
Servers that must be told their port before they start.
"""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.support.waiting import wait_until

TRIES = 3
START_SECONDS = 60.0


def start_on_free_port(
    command: Callable[[int], list[str]], answers: Callable[[int], bool], log: Path
) -> tuple[subprocess.Popen[bytes], int]:
    """
    Start a server on a port of 127.0.0.1 that is free, and wait until it answers.

    Args:
        command: The command line for a port.
        answers: Whether it answers there; may raise OSError while it does not.
        log: Where its output goes.

    Raises:
        AssertionError: It never answers, or ended each time (another process may take the port).
    """
    for _ in range(TRIES):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command(port), stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )

        def is_decided(process: subprocess.Popen[bytes] = process, port: int = port) -> bool:
            try:
                return process.poll() is not None or answers(port)
            except OSError:
                return False

        try:
            wait_until(is_decided, f"{process.args!r} answers", START_SECONDS)
        except BaseException:
            process.kill()
            process.wait()
            raise
        if process.poll() is None:
            return process, port
    raise AssertionError(log.read_text())
