"""
git's credential helper: ``python -I -S credential_helper.py SOCKET get|store|erase``.

It passes git's question to the wrapper, and returns the answer. git starts it for each login, so it
imports only built-in modules: 7 ms, while ``import socket`` alone makes it 13 (2026-11).
Protocol with git: https://git-scm.com/docs/git-credential#IOFMT. With the wrapper: a line with the
action, then git's input; the reply is the output for git, a NUL, and a message for people.
"""

from __future__ import annotations

import _socket
import sys

ANSWER_SECONDS = 60.0


def ask(path: str, action: str, question: bytes) -> tuple[bytes, bytes]:
    """
    Return the output for git, and the message for people.

    Raises:
        OSError: The wrapper does not answer.
    """
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    connection.settimeout(ANSWER_SECONDS)
    connection.connect(path)
    message = memoryview(action.encode() + b"\n" + question)
    while message:
        message = message[connection.send(message) :]
    connection.shutdown(_socket.SHUT_WR)
    answer = b""
    while chunk := connection.recv(65536):
        answer += chunk
    for_git, _, for_people = answer.partition(b"\0")
    return for_git, for_people


def main() -> None:
    """
    Pass on question and answer; without an answer, tell git not to ask another helper.
    """
    path, action = sys.argv[1:3]
    question = sys.stdin.buffer.read()
    try:
        for_git, for_people = ask(path, action, question)
    except OSError as error:
        for_git = b"quit=1\n" if action == "get" else b""
        for_people = f"git-sync-wrapper does not answer: {error}\n".encode()
    sys.stdout.buffer.write(for_git)
    sys.stderr.buffer.write(for_people)


if __name__ == "__main__":
    main()
