"""
Answers of all kinds to a listing and a download: each ends as its row specifies, in
little memory.

If possible, the answer is the good one, sent in another way.
"""

import hashlib
import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import pytest

from s3_sync.s3.client import S3Client
from s3_sync.s3.http import BODY_LIMIT_BYTES
from sidecar_runtime.errors import SidecarError
from tests.s3_sync.given import Body, play
from tests.support.aws.fake_s3 import FakeS3, error
from tests.support.http.faults import drip, raw, reset, truncate
from tests.support.http.loopback import Exchange, Fault

BODY = b"print('hello')\n"
BOTH = pytest.mark.parametrize("what", ["list", "get"])


@pytest.fixture
def s3(s3: FakeS3) -> FakeS3:
    s3.put("dags/a.py", BODY)
    return s3


def read(s3: FakeS3, what: str, times: int = 1) -> tuple[str, bytes]:
    """
    List or get; return the reason of the error, empty after success, and the last body.
    """
    body = Body()

    async def scene(client: S3Client) -> None:
        for _ in range(times):
            if what == "list":
                body.restart()
                body.write(await client.list_page(None))
            else:
                await client.get_object(
                    "dags/a.py", hashlib.md5(BODY).hexdigest(), 15, body
                )

    try:
        play(s3, scene)
    except SidecarError as error:
        return error.reason, b""
    return "", body.whole


def sent_as(
    head: bytes,
    frame: Callable[[bytes], bytes] = bytes,
    after: bytes = b"",
    *,
    closes: bool = False,
) -> Fault:
    """
    Send the good body with a head, a framing and a tail; `SIZE` stands for its length.
    """

    def fault(exchange: Exchange) -> None:
        body = exchange.good().body
        exchange.send_bytes(
            head.replace(b"SIZE", b"%d" % len(body)) + frame(body) + after
        )
        if closes:
            exchange.close()

    return fault


def padded_etag(exchange: Exchange) -> None:
    """Send the good answer; RFC 9110 allows blanks and tabs around each value."""
    answer = exchange.good()
    exchange.send(
        replace(
            answer,
            headers={
                **answer.headers,
                "ETag": f"\t {answer.headers.get('ETag', '')} \t",
            },
        )
    )


OK = b"HTTP/1.1 200 OK\r\n"
SIZED = OK + b"Content-Length: SIZE\r\n\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
EVIL = {"Location": "http://127.0.0.1:9/evil"}


def one_chunk(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(body), body)


def tiny_chunks(body: bytes) -> bytes:
    return b"".join(b"1\r\n%c\r\n" % byte for byte in body)


def moved_to(region: str) -> Fault:
    return error(301, "PermanentRedirect", headers={"x-amz-bucket-region": region})


# Unusual, but complete.
WHOLE = {
    "one chunk": sent_as(CHUNKED, one_chunk, b"0\r\n\r\n"),
    "chunks of one byte": sent_as(CHUNKED, tiny_chunks, b"0\r\n\r\n"),
    "trailers, one of them an ETag": sent_as(
        CHUNKED, one_chunk, b'0\r\nETag: "other"\r\nX: y\r\n\r\n'
    ),
    "byte by byte": drip(1, 0),
    "100 before it": sent_as(b"HTTP/1.1 100 Continue\r\n\r\n" + SIZED),
    "103 before it, twice": sent_as(
        b"HTTP/1.1 103 Hints\r\nLink: </x>\r\n\r\n" * 2 + SIZED
    ),
    "Connection: close": sent_as(
        OK + b"Connection: close\r\n" + SIZED[len(OK) :], closes=True
    ),
    "closed silently": sent_as(SIZED, closes=True),
    "a second answer after it": sent_as(
        SIZED, after=OK + b"Content-Length: 4\r\n\r\nevil"
    ),
    "garbage after it": sent_as(SIZED, after=b"\x00\xff" * 100),
    "an ETag with blanks around it": padded_etag,
}
# Broken or refused: the reason, and the number of requests.
BROKEN: dict[str, tuple[Fault, str, int]] = {
    "closed before the answer": (raw(b""), "connection_lost", 3),
    "reset before the answer": (reset(), "connection_lost", 3),
    "truncated in the body": (truncate(after=3), "connection_lost", 3),
    "no last chunk": (sent_as(CHUNKED, one_chunk, closes=True), "connection_lost", 3),
    "neither length nor chunks": (
        sent_as(OK + b"\r\n", closes=True),
        "server_error",
        3,
    ),
    "a login page without a head": (raw(b"<html>\r\n\r\n"), "server_error", 3),
    "101, another protocol": (
        raw(b"HTTP/1.1 101 x\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n"),
        "server_error",
        3,
    ),
    "301 to another host": (error(301, "Moved", headers=EVIL), "redirect_refused", 1),
    "301 to a region that would be a host": (
        moved_to("evil.example/"),
        "redirect_refused",
        1,
    ),
    "301 back and forth": (moved_to("eu-west-1"), "redirect_refused", 2),
}


@BOTH
@pytest.mark.parametrize("name", WHOLE)
def test_an_unusual_answer_is_complete_and_its_connection_is_used_correctly(
    s3: FakeS3, name: str, what: str
) -> None:
    good = read(s3, what)
    s3.forget()
    s3.inject(WHOLE[name])

    assert good == read(s3, what, times=2)
    assert 2 == len(s3.requests)


@BOTH
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_answer_is_an_error(s3: FakeS3, name: str, what: str) -> None:
    fault, reason, requests = BROKEN[name]
    s3.inject(fault)

    assert (reason, b"") == read(s3, what)
    assert requests == len(s3.requests)


# --- memory

ENDLESS_BYTES = 4 * BODY_LIMIT_BYTES
"""
What a server sends at most of what has no end.
"""


def endless(start: bytes, repeated: bytes) -> Fault:
    """
    Send the same bytes repeatedly until the client disconnects; `%d` in them is a
    number.
    """

    def fault(exchange: Exchange) -> None:
        exchange.send_bytes(start)
        sent = number = 0
        while sent < ENDLESS_BYTES:
            few = range(number, number + (64 << 10) // len(repeated))
            piece = b"".join(repeated.replace(b"%d", b"%d" % n) for n in few)
            exchange.send_bytes(piece)
            sent = sent + len(piece)
            number = few.stop
        exchange.close()

    return fault


HEADERS = b"a%d: b\r\n"
WITHOUT_END = {
    "blank lines": endless(b"", b"\r\n"),
    "answers 103 with headers": endless(
        b"", b"HTTP/1.1 103 x\r\nLink: </a>; rel=x\r\n\r\n"
    ),
    "the status line": endless(b"HTTP/1.1 200 ", b"x"),
    "headers": endless(OK, HEADERS),
    "headers of an error": endless(b"HTTP/1.1 403 x\r\n", HEADERS),
    "the size of a chunk": endless(CHUNKED, b"0"),
    "trailers": endless(CHUNKED + one_chunk(BODY) + b"0\r\n", HEADERS),
}


def grown_bytes(s3: FakeS3, what: str, reason: str) -> int:
    """
    Return the peak of the memory that a request takes, which must end with this reason.
    """
    tracemalloc.start()
    try:
        assert reason == read(s3, what)[0]
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("part", WITHOUT_END)
def test_endless_answers_are_refused_with_little_memory(s3: FakeS3, part: str) -> None:
    s3.inject(WITHOUT_END[part])

    assert grown_bytes(s3, "get", "server_error") < ENDLESS_BYTES / 16


@pytest.mark.parametrize("status", [200, 403])
def test_the_memory_for_a_kept_body_is_limited(s3: FakeS3, status: int) -> None:
    s3.inject(endless(CHUNKED.replace(b"200", b"%d" % status), one_chunk(b"x" * 1000)))

    assert grown_bytes(s3, "list", "server_error") < ENDLESS_BYTES / 2


@BOTH
def test_a_body_in_tiny_chunks_takes_little_memory(s3: FakeS3, what: str) -> None:
    """As a list of pieces it would take twenty times as much memory."""

    def fault(exchange: Exchange) -> None:
        exchange.send_bytes(CHUNKED)
        for _ in range(30):
            exchange.send_bytes(b"2\r\nxx\r\n" * 10_000)
        exchange.send_bytes(b"0\r\n\r\n")

    s3.inject(fault)

    assert grown_bytes(s3, what, "") < 4 * 600_000
