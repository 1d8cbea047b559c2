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
    with_headers,
    wrong_length,
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


def closed_after(fault: Fault) -> Fault:
    """Add closing the connection to a fault."""

    def both(exchange: Exchange) -> None:
        fault(exchange)
        exchange.close()

    return both


OK = b"HTTP/1.1 200 OK\r\n"
SIZED = OK + b"Content-Length: SIZE\r\n\r\n"
CHUNKS = OK + b"Transfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def one_chunk(line: bytes = b"%x\r\n") -> Callable[[bytes], bytes]:
    return lambda body: line % len(body) + body + b"\r\n"


def status(code: int, name: str, **headers: str) -> Fault:
    return error(code, name, headers={k.replace("_", "-"): v for k, v in headers.items()})


# --- unusual, but complete

ODD_BUT_WHOLE = {
    "sent in one piece": Row(sent_as(SIZED), WHOLE),
    "one chunk": Row(sent_as(CHUNKS, one_chunk(), END), WHOLE),
    "chunks of one byte": Row(chunked(1), WHOLE),
    "chunk sizes in capitals and with zeros": Row(
        sent_as(CHUNKS, one_chunk(b"000%X\r\n"), END), WHOLE
    ),
    "chunk extensions": Row(sent_as(CHUNKS, one_chunk(b'%x;a=b;c="d"\r\n'), END), WHOLE),
    "trailers, one of them an ETag": Row(
        sent_as(CHUNKS, one_chunk(), b'0\r\nETag: "other"\r\nX: y\r\n\r\n'), WHOLE
    ),
    "byte by byte": Row(drip(1, 0), WHOLE),
    "100 before it": Row(sent_as(b"HTTP/1.1 100 Continue\r\n\r\n" + SIZED), WHOLE),
    "103 before it, twice, with headers": Row(
        sent_as(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 2 + SIZED), WHOLE
    ),
    "HTTP/1.0, closed": Row(closed_after(sent_as(SIZED.replace(b"HTTP/1.1", b"HTTP/1.0"))), WHOLE),
    "Connection: close": Row(close_after(), WHOLE),
    "closed silently": Row(close_silently(), WHOLE),
    "a second answer after it": Row(
        sent_as(SIZED, after=OK + b"Content-Length: 4\r\n\r\nevil"), WHOLE
    ),
    "408 behind it, closed": Row(
        closed_after(sent_as(SIZED, after=b"HTTP/1.1 408 x\r\nContent-Length: 0\r\n\r\n")), WHOLE
    ),
    "garbage after it": Row(sent_as(SIZED, after=b"\x00\xff" * 100), WHOLE),
    "no reason phrase": Row(sent_as(SIZED.replace(b"200 OK", b"200 ")), WHOLE),
    "header names in capitals, tabs around values": Row(
        sent_as(OK + b"CONTENT-LENGTH:\t SIZE \t\r\n\r\n"), WHOLE
    ),
    "a header value that is not ASCII": Row(
        sent_as(OK + b"X: caf\xe9\r\nContent-Length: SIZE\r\n\r\n"), WHOLE
    ),
    "an ETag with blanks around it": Row(padded_etag, WHOLE),
    "an unrequested content encoding": Row(with_headers(Content_Encoding="gzip"), WHOLE),
}

# --- broken

BROKEN = {
    "closed before the answer": Row(raw(b""), "connection_lost", 3),
    "reset before the answer": Row(reset(), "connection_lost", 3),
    "reset in the body": Row(reset(after=3), "connection_lost", 3),
    "truncated in the head": Row(raw(OK[:-4]), "connection_lost", 3),
    "truncated in the body": Row(truncate(after=3), "connection_lost", 3),
    "a length larger than the body": Row(wrong_length(5), "connection_lost", 3),
    "no last chunk": Row(chunked(end=False), "connection_lost", 3),
    "truncated in a trailer": Row(
        closed_after(sent_as(CHUNKS, one_chunk(), b"0\r\nX: ")), "connection_lost", 3
    ),
    "neither length nor chunks": Row(unframed(), "server_error", 3),
    "a chunk size that is not a number": Row(sent_as(CHUNKS + b"xyz\r\n"), "server_error", 3),
    "a chunk size of 72 bits": Row(sent_as(CHUNKS + b"f" * 18 + b"\r\n"), "server_error", 3),
    "a chunk that is longer than its size": Row(
        sent_as(CHUNKS, lambda body: b"1\r\n" + body), "server_error", 3
    ),
    "a negative length": Row(sent_as(OK + b"Content-Length: -5\r\n\r\n"), "server_error", 3),
    "two lengths": Row(
        sent_as(SIZED.replace(b"\r\n\r\n", b"\r\nContent-Length: 1\r\n\r\n")), "server_error", 3
    ),
    "a length and chunks": Row(
        sent_as(SIZED.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n")),
        "server_error",
        3,
    ),
    "a header name that is not ASCII": Row(
        sent_as(OK + b"X-Caf\xe9: x\r\nContent-Length: SIZE\r\n\r\n"), "server_error", 3
    ),
    "a header without a colon": Row(sent_as(OK + b"hello\r\n\r\n"), "server_error", 3),
    "a status that is not a number": Row(raw(b"HTTP/1.1 abc OK\r\n\r\n"), "server_error", 3),
    "a greeting of a mail server": Row(raw(b"220 mail.example ESMTP\r\n"), "server_error", 3),
    "a login page without a head": Row(raw(b"<html>\r\n\r\n"), "server_error", 3),
    "TLS, where HTTP is asked for": Row(raw(b"\x15\x03\x01\x00\x02\x02\x28"), "server_error", 3),
    "HTTP/2": Row(raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), "server_error", 3),
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
        for code in (301, 302, 303, 307, 308)
    },
    "301 to a region that would be a host": Row(
        status(301, "PermanentRedirect", x_amz_bucket_region="evil.example/"), "redirect_refused"
    ),
    "301 back and forth": Row(
        status(301, "PermanentRedirect", x_amz_bucket_region="eu-west-1"), "redirect_refused", 2
    ),
    "a clock that is wrong": Row(status(403, "RequestTimeTooSkewed"), "clock_skew"),
    "a signature that does not match": Row(
        status(403, "SignatureDoesNotMatch"), "credentials_invalid"
    ),
    "an unknown key": Row(status(403, "InvalidAccessKeyId"), "credentials_invalid"),
    "an expired session": Row(status(400, "ExpiredToken"), "credentials_expired"),
    "407, from a proxy that nobody configured": Row(
        answer_with(Answer(407, {}, b"<html>")), "proxy_refused"
    ),
    "429": Row(status(429, "TooManyRequests"), "throttled", 3),
    "503": Row(status(503, "SlowDown"), "throttled", 3),
    "500": Row(status(500, "InternalError"), "server_error", 3),
    "408": Row(status(408, "RequestTimeout"), "server_error", 3),
    "a missing bucket": Row(status(404, "NoSuchBucket"), "bucket_not_found"),
    "400 from the region that was asked": Row(
        status(400, "InvalidArgument", x_amz_bucket_region="us-east-1"), "client_error"
    ),
    "an error that is not XML": Row(answer_with(Answer(400, {}, b"\xff<")), "client_error"),
}
