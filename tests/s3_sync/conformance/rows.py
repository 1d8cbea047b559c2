"""
Answers of a server, and the result of a request for a listing or an object: one row per case.

If possible, the answer is the good one, sent in another way.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from tests.support.aws.fake_s3 import error, redirect
from tests.support.http.faults import (
    answer_with,
    chunked,
    close_after,
    close_silently,
    drip,
    raw,
    reset,
    truncate,
    unframed,
)
from tests.support.http.loopback import Answer, Exchange, Fault

WHOLE = ""


@dataclass(frozen=True)
class Row:
    """
    One case.

    Args:
        fault: The server's behavior for each request.
        ends: The reason of the error, or `WHOLE` if the good answer arrives.
        requests: The number of requests until then.
    """

    fault: Fault
    ends: str
    requests: int = 1


def sent_as(head: bytes, frame: Callable[[bytes], bytes] = bytes, after: bytes = b"") -> Fault:
    """Send the good body with a head, a framing and a tail; `SIZE` stands for its length."""

    def fault(exchange: Exchange) -> None:
        body = exchange.good().body
        exchange.send_bytes(head.replace(b"SIZE", b"%d" % len(body)) + frame(body) + after)

    return fault


def padded_etag(exchange: Exchange) -> None:
    """Send the good answer; RFC 9110 allows blanks and tabs around each value."""
    answer = exchange.good()
    headers = {**answer.headers, "ETag": f"\t {answer.headers.get('ETag', '')} \t"}
    exchange.send(replace(answer, headers=headers))


OK = b"HTTP/1.1 200 OK\r\n"
SIZED = OK + b"Content-Length: SIZE\r\n\r\n"
CHUNKS = OK + b"Transfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def one_chunk(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(body), body)


def status(code: int, name: str, **headers: str) -> Fault:
    return error(code, name, headers={k.replace("_", "-"): v for k, v in headers.items()})


# --- unusual, but complete

ODD_BUT_WHOLE = {
    "one chunk": Row(sent_as(CHUNKS, one_chunk, END), WHOLE),
    "chunks of one byte": Row(chunked(1), WHOLE),
    "trailers, one of them an ETag": Row(
        sent_as(CHUNKS, one_chunk, b'0\r\nETag: "other"\r\nX: y\r\n\r\n'), WHOLE
    ),
    "byte by byte": Row(drip(1, 0), WHOLE),
    "100 before it": Row(sent_as(b"HTTP/1.1 100 Continue\r\n\r\n" + SIZED), WHOLE),
    "103 before it, twice, with headers": Row(
        sent_as(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 2 + SIZED), WHOLE
    ),
    "Connection: close": Row(close_after(), WHOLE),
    "closed silently": Row(close_silently(), WHOLE),
    "a second answer after it": Row(
        sent_as(SIZED, after=OK + b"Content-Length: 4\r\n\r\nevil"), WHOLE
    ),
    "garbage after it": Row(sent_as(SIZED, after=b"\x00\xff" * 100), WHOLE),
    "an ETag with blanks around it": Row(padded_etag, WHOLE),
}

# --- broken

BROKEN = {
    "closed before the answer": Row(raw(b""), "connection_lost", 3),
    "reset before the answer": Row(reset(), "connection_lost", 3),
    "truncated in the body": Row(truncate(after=3), "connection_lost", 3),
    "no last chunk": Row(chunked(end=False), "connection_lost", 3),
    "neither length nor chunks": Row(unframed(), "server_error", 3),
    "a login page without a head": Row(raw(b"<html>\r\n\r\n"), "server_error", 3),
    "101, another protocol": Row(
        raw(b"HTTP/1.1 101 x\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n"), "server_error", 3
    ),
}

# --- refused

REFUSED = {
    **{
        f"{code} to another host": Row(
            redirect("http://127.0.0.1:9/evil", code), "redirect_refused"
        )
        for code in (301, 307)
    },
    "301 to a region that would be a host": Row(
        status(301, "PermanentRedirect", x_amz_bucket_region="evil.example/"), "redirect_refused"
    ),
    "301 back and forth": Row(
        status(301, "PermanentRedirect", x_amz_bucket_region="eu-west-1"), "redirect_refused", 2
    ),
    "an expired session": Row(status(400, "ExpiredToken"), "credentials_expired"),
    "407, from a proxy that nobody configured": Row(
        answer_with(Answer(407, {}, b"<html>")), "proxy_refused"
    ),
    "503": Row(status(503, "SlowDown"), "throttled", 3),
}
