"""
A consumer that requests older revisions from a sidecar over its socket.
"""

import json
import os
import socket
from collections.abc import Callable
from http.client import HTTPResponse
from pathlib import Path

from tests import Facts
from tests.support.waiting import wait_until

STORE = Path(".s3-sync/snapshots")
PATIENCE_SECONDS = 5.0


def ask(folder: Path, question: str, method: str = "GET") -> tuple[int, Facts]:
    """
    Send a request to the socket in a folder; return the status and the answer.

    Raises:
        OSError: The sidecar does not answer.
    """
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    client = socket.socket(socket.AF_UNIX)
    try:
        client.settimeout(PATIENCE_SECONDS)
        client.connect(f"/proc/self/fd/{opened}/ask.sock")
        # Built by hand, because client libraries refuse to send some of these requests.
        client.sendall(
            f"{method} {question} HTTP/1.1\r\nConnection: close\r\n\r\n".encode()
        )
        answer = HTTPResponse(client)
        answer.begin()
        return answer.status, json.loads(answer.read() or b"{}")
    finally:
        client.close()
        os.close(opened)


def asked(
    folder: Path,
    revision: str,
    until: Callable[[int], bool] = lambda status: status == 200,
) -> tuple[int, Facts]:
    """
    Request a revision until the answer has the expected status; return the last answer.
    """
    last: list[tuple[int, Facts]] = []

    def answers() -> bool:
        last[:] = [ask(folder, f"/revisions/{revision}")]
        return until(last[0][0])

    try:
        wait_until(answers, f"an answer about {revision}")
    except AssertionError as error:
        raise AssertionError(f"{error}: {last}") from None
    return last[0]


def kept(store: Path) -> set[str]:
    """
    Return the names of the versions in a store.
    """
    return {
        path.name for path in store.iterdir() if path.is_dir() and path.name[0] != "."
    }
