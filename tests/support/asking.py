"""
A consumer that asks a sidecar for older revisions over its socket.
"""

import json
import os
import socket
from collections.abc import Callable
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

from tests.support.waiting import wait_until

STORE = Path(".s3-sync/snapshots")
PATIENCE_SECONDS = 5.0


def ask(folder: Path, question: str, method: str = "GET") -> tuple[int, dict[str, Any]]:
    """
    Ask one question at the socket in a folder; return the status, and what was said.

    Raises:
        OSError: Nobody answers.
    """
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    client = socket.socket(socket.AF_UNIX)
    try:
        client.settimeout(PATIENCE_SECONDS)
        client.connect(f"/proc/self/fd/{opened}/ask.sock")
        # By hand, as no client would send some of these questions.
        client.sendall(f"{method} {question} HTTP/1.1\r\nConnection: close\r\n\r\n".encode())
        answer = HTTPResponse(client)
        answer.begin()
        return answer.status, json.loads(answer.read() or b"{}")
    finally:
        client.close()
        os.close(opened)


def asked(
    folder: Path, revision: str, until: Callable[[int], bool] = lambda status: status == 200
) -> tuple[int, dict[str, Any]]:
    """
    Ask for a revision until the status is the one that is waited for; return the last answer.
    """
    last: list[tuple[int, dict[str, Any]]] = []

    def answers() -> bool:
        last[:] = [ask(folder, f"/revisions/{revision}")]
        return until(last[0][0])

    wait_until(answers, f"an answer about {revision}: {last}")
    return last[0]
