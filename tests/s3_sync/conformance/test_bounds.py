"""Whatever a server sends, the client ends the request with a fraction of that much memory."""

import pytest

from s3_sync.s3.wire import BODY_LIMIT_BYTES
from tests.s3_sync.conformance.reader import Reader
from tests.support.aws.fake_s3 import FakeS3
from tests.support.http.loopback import Exchange, Fault

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
ENDLESS_BYTES = 4 * BODY_LIMIT_BYTES
"""
What a server sends at most of what has no end.
"""


def endless(start: bytes, repeated: bytes) -> Fault:
    """Send the same bytes repeatedly until the client disconnects."""
    piece = repeated * ((64 << 10) // len(repeated))

    def fault(exchange: Exchange) -> None:
        exchange.send_bytes(start)
        for _ in range(ENDLESS_BYTES // len(piece)):
            exchange.send_bytes(piece)
        exchange.close()

    return fault


def numbered(start: bytes) -> Fault:
    """Send headers or trailers, each with a new name."""

    def fault(exchange: Exchange) -> None:
        exchange.send_bytes(start)
        for first in range(0, ENDLESS_BYTES // 12, 10_000):
            lines = (b"a%07d: b\r\n" % number for number in range(first, first + 10_000))
            exchange.send_bytes(b"".join(lines))
        exchange.close()

    return fault


WITHOUT_END = {
    "blank lines": endless(b"", b"\r\n"),
    "answers 103 with headers": endless(b"", b"HTTP/1.1 103 x\r\nLink: </a>; rel=x\r\n\r\n"),
    "the status line": endless(b"HTTP/1.1 200 ", b"x"),
    "headers": numbered(b"HTTP/1.1 200 OK\r\n"),
    "headers of an error": numbered(b"HTTP/1.1 403 x\r\n"),
    "the size of a chunk": endless(CHUNKED, b"0"),
    "trailers": numbered(CHUNKED + b"f\r\nprint('hello')\n\r\n0\r\n"),
}


@pytest.fixture
def endless_kib() -> int:
    return ENDLESS_BYTES >> 10


@pytest.mark.parametrize("part", WITHOUT_END)
def test_endless_answers_are_refused_with_little_memory(
    s3: FakeS3, reader: Reader, part: str, endless_kib: int
) -> None:
    s3.inject(WITHOUT_END[part])

    report = reader.read("get", s3.endpoint)

    assert "server_error" == report.reason, report
    assert report.grown_kib < endless_kib / 16


@pytest.mark.parametrize("status", [200, 403])
def test_the_memory_for_a_kept_body_is_limited(
    s3: FakeS3, reader: Reader, status: int, endless_kib: int
) -> None:
    head = CHUNKED.replace(b"200", b"%d" % status)
    s3.inject(endless(head, b"%x\r\n%b\r\n" % (1000, b"x" * 1000)))

    report = reader.read("list", s3.endpoint)

    assert "server_error" == report.reason, report
    assert report.grown_kib < endless_kib / 2


@pytest.mark.parametrize("what", ["list", "get"])
def test_a_body_in_tiny_chunks_takes_little_memory(s3: FakeS3, reader: Reader, what: str) -> None:
    """As a list of pieces it would take twenty times as much memory."""
    chunk = b"2\r\nxx\r\n"

    def fault(exchange: Exchange) -> None:
        exchange.send_bytes(CHUNKED)
        for _ in range(100):
            exchange.send_bytes(chunk * 10_000)
        exchange.send_bytes(b"0\r\n\r\n")

    s3.inject(fault)

    report = reader.read(what, s3.endpoint)

    assert ("", 2_000_000) == (report.reason, report.body_bytes)
    assert report.grown_kib * 1024 < 4 * report.body_bytes
