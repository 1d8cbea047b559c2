"""
Reading of an HTTP answer: in pieces of any size, whole or broken.
"""

import itertools
import socket
import time
from typing import cast

import pytest

from git_sync_wrapper.http.answer import Answer, NotHttp, read_answer

OK = b"HTTP/1.1 200 OK\r\n"


def read(*pieces: bytes, seconds: float = 10.0) -> Answer:
    """Read what a server sends before it closes the connection."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(10)
        for piece in pieces:
            theirs.sendall(piece)
        theirs.shutdown(socket.SHUT_WR)
        return read_answer(ours, time.monotonic() + seconds)


class OneByOne(socket.socket):
    def recv(self, size: int, flags: int = 0) -> bytes:
        return super().recv(1, flags)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (
            OK + b"Content-Length: 5\r\nX-Odd:a: b \r\n\r\nhello",
            Answer(200, {"content-length": "5", "x-odd": "a: b"}, b"hello", False),
        ),
        (OK + b"content-length:0\r\n\r\n", Answer(200, {"content-length": "0"}, b"", False)),
        (
            OK + b"Connection: close\r\nContent-Length: 1\r\n\r\nx",
            Answer(200, {"connection": "close", "content-length": "1"}, b"x", True),
        ),
        (OK + b"\r\nto the end", Answer(200, {}, b"to the end", True)),
        (b"HTTP/1.0 404 Not Found\r\n\r\n", Answer(404, {}, b"", True)),
        (b"HTTP/1.1 204 \r\n\r\n", Answer(204, {}, b"", False)),
        (b"HTTP/1.1 200 OK\nX: y\n\nby nc\r\n", Answer(200, {"x": "y"}, b"by nc\r\n", True)),
        (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 401\r\nContent-Length: 1\r\n\r\nx",
            Answer(401, {"content-length": "1"}, b"x", False),
        ),
        (
            b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + OK + b"Content-Length: 0\r\n\r\n",
            Answer(200, {"content-length": "0"}, b"", False),
        ),
        (
            OK + b"Upgrade: h2\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n",  # Apache
            Answer(
                200, {"upgrade": "h2", "connection": "Upgrade", "content-length": "0"}, b"", False
            ),
        ),
        (
            OK
            + b"Transfer-Encoding: Chunked\r\n\r\n5;x=y\r\nhello\r\nA\r\n0123456789\r\n0\r\n\r\n",
            Answer(200, {"transfer-encoding": "Chunked"}, b"hello0123456789", False),
        ),
        (
            OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\nTrailer: x\r\n\r\n",
            Answer(200, {"transfer-encoding": "chunked"}, b"", False),
        ),
        (
            OK + b"Content-Length: 1\r\n\r\nx and more",
            Answer(200, {"content-length": "1"}, b"x", True),
        ),
        (
            (OK + b"Content-Length: 1\r\n\r\nx") * 2,
            Answer(200, {"content-length": "1"}, b"x", True),
        ),
    ],
)
def test_reads_answers_in_pieces_of_any_size(sent: bytes, expected: Answer) -> None:
    assert expected == read(sent)

    ours, theirs = socket.socketpair()
    with OneByOne(fileno=ours.detach()) as slow, theirs:
        theirs.sendall(sent)
        theirs.shutdown(socket.SHUT_WR)
        found = read_answer(slow, time.monotonic() + 10)
    assert (expected.status, expected.body) == (found.status, found.body)


@pytest.mark.parametrize(
    "sent",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 2x0 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent",
        OK + b"Content-Length: 6\r\n\r\nhello",
        OK + b"Content-Length: -1\r\n\r\n",
        OK + b"Content-Length: 5, 5\r\n\r\nhello",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhel",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
    ],
)
def test_refuses_a_broken_answer(sent: bytes) -> None:
    with pytest.raises(NotHttp):
        read(sent)


def test_distinguishes_a_connection_that_was_closed_without_an_answer() -> None:
    """A kept connection may end like this; then the request is worth a retry."""
    with pytest.raises(ConnectionResetError):
        read(b"")


class Endless:
    """A connection that sends a beginning, and then the same piece without end."""

    def __init__(self, begin: bytes, piece: bytes) -> None:
        self._pieces = itertools.chain([begin], itertools.repeat(piece))
        self.sent_bytes = 0

    def settimeout(self, seconds: float) -> None:
        pass

    def recv(self, size: int) -> bytes:
        piece = next(self._pieces)
        self.sent_bytes += len(piece)
        return piece


@pytest.mark.parametrize(
    ("begin", "piece", "limit_bytes"),
    [
        (OK + b"Content-Length: 99999999999\r\n\r\n", bytes(65_000), 64 << 20),
        (OK + b"\r\n", bytes(65_000), 64 << 20),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"fa00\r\n%b\r\n" % bytes(64_000), 64 << 20),
        (OK, b"X: " + b"x" * 500 + b"\r\n", 64 << 10),
        (OK, b"X" * 500, 64 << 10),
        (b"HTTP/1.1 ", b"100 Continue\r\n\r\nHTTP/1.1 ", 64 << 10),
    ],
)
def test_refuses_an_endless_answer(begin: bytes, piece: bytes, limit_bytes: int) -> None:
    endless = Endless(begin, piece)

    with pytest.raises(NotHttp, match="it is too long"):
        read_answer(cast(socket.socket, endless), time.monotonic() + 60)

    assert limit_bytes < endless.sent_bytes <= limit_bytes + len(piece)


def test_an_answer_after_its_deadline_times_out() -> None:
    with pytest.raises(TimeoutError):
        read(OK, seconds=-1.0)
