"""
Reads one HTTP/1.1 answer from a socket; strict, and with a deadline.

http.client reads headers by the parser of e-mails, which costs as much as the rest of a poll
(0.1 ms of CPU, 2026-11).
Source: https://www.rfc-editor.org/rfc/rfc9112.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass

HEAD_LIMIT_BYTES = 64 << 10
# The list of refs of a server without version 2 grows with the repository.
BODY_LIMIT_BYTES = 64 << 20


class NotHttp(ValueError):
    """
    What came is no answer of HTTP, or not all of one.
    """


@dataclass(frozen=True, slots=True)
class Answer:
    """
    Status, headers (lower-case names) and the whole body.

    Args:
        is_last: Whether the connection ends with it.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    is_last: bool


def read_answer(connection: socket.socket, ends_at: float) -> Answer:
    """
    Read an answer.

    Args:
        ends_at: When to give up, by the monotonic clock; each wait is bounded by the socket's.

    Raises:
        ConnectionResetError: The connection was closed before the answer began.
        NotHttp: It is none, or is cut off, or does not end.
        OSError: The connection fails.
    """
    reader = _Reader(connection, ends_at)
    head = reader.head()
    while head[9:10] == "1":  # "HTTP/1.1 100 Continue": the answer is still to come
        head = reader.head()
    first, *lines = head.split("\n")
    version, _, rest = first.partition(" ")
    if version not in ("HTTP/1.1", "HTTP/1.0") or not rest[:3].isdecimal():
        raise NotHttp("it does not begin as an answer of HTTP does")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    connection_header = headers.get("connection", "").lower()
    is_last = version == "HTTP/1.0" or "close" in connection_header
    status = int(rest[:3])
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = reader.chunks()
    elif status in (204, 304):
        body = b""
    elif (length := headers.get("content-length")) is not None:
        if not length.isdecimal():
            raise NotHttp("its length is no number")
        body = reader.take(int(length))
    else:
        body, is_last = reader.rest(), True
    return Answer(status, headers, body, is_last or bool(reader.left))


class _Reader:
    """
    What has come and was not yet used.
    """

    def __init__(self, connection: socket.socket, ends_at: float) -> None:
        self._connection = connection
        self._ends_at = ends_at
        self.left = bytearray()

    def _more(self) -> bool:
        if time.monotonic() > self._ends_at:
            raise TimeoutError
        received = self._connection.recv(65536)
        self.left += received
        return bool(received)

    def _until(self, end: bytes) -> bytes:
        while (at := self.left.find(end)) < 0:
            if len(self.left) > HEAD_LIMIT_BYTES:
                raise NotHttp("its head does not end")
            if not self._more():
                raise NotHttp("it was cut off")
        return self._cut(at, len(end))

    def _cut(self, size: int, more: int = 0) -> bytes:
        found = bytes(self.left[:size])
        del self.left[: size + more]
        return found

    def head(self) -> str:
        """
        Return the lines before the body; a bare LF ends a line too, as scripts write them.
        """
        if not self.left and not self._more():
            raise ConnectionResetError("closed before the answer")
        lines: list[bytes] = []
        while line := self._until(b"\n").rstrip(b"\r"):
            lines.append(line)
        return b"\n".join(lines).decode("latin-1")

    def take(self, size: int) -> bytes:
        if size > BODY_LIMIT_BYTES:
            raise NotHttp("it is too long")
        while len(self.left) < size:
            if not self._more():
                raise NotHttp("it was cut off")
        return self._cut(size)

    def rest(self) -> bytes:
        while len(self.left) <= BODY_LIMIT_BYTES:
            if not self._more():
                return self._cut(len(self.left))
        raise NotHttp("it does not end")

    def chunks(self) -> bytes:
        body = bytearray()
        while size := self._chunk_size():
            if len(body) + size > BODY_LIMIT_BYTES:
                raise NotHttp("it does not end")
            body += self.take(size)
            if self._until(b"\r\n"):
                raise NotHttp("a chunk is longer than it says")
        while self._until(b"\r\n"):
            pass  # trailers
        return bytes(body)

    def _chunk_size(self) -> int:
        digits = self._until(b"\r\n").partition(b";")[0].strip()
        if not digits or digits.strip(b"0123456789abcdefABCDEF"):
            raise NotHttp("the size of a chunk is no number")
        return int(digits, 16)
