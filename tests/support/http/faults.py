"""
Faults of an HTTP answer in transit, for any `LoopbackServer`.

Faults that are specific to S3 (its error documents, redirects) are in
`tests.support.aws.fake_s3`.
"""

from collections.abc import Callable
from dataclasses import replace

from tests import Deed
from tests.support.http.loopback import Answer, Exchange, Fault, framed


def answer_with(answer: Answer) -> Fault:
    """
    Send this answer instead of the good one.
    """
    return lambda exchange: exchange.send(answer)


def first(action: Deed) -> Fault:
    """
    Run the action, then answer normally: a change between two requests.
    """

    def fault(exchange: Exchange) -> None:
        action()
        exchange.send(exchange.good())

    return fault


def _begin(exchange: Exchange, after: int) -> bytes:
    """
    Announce the full length and send that many bytes of the body; return the rest.
    """
    answer = exchange.good()
    exchange.send_head(answer.status, framed(answer))
    exchange.send_bytes(answer.body[:after])
    return answer.body[after:]


def hang(after: int | None = None) -> Fault:
    """
    Hang before the answer, or after that many bytes of its body; continue when
    released.
    """

    def fault(exchange: Exchange) -> None:
        if after is None:
            exchange.hang()
            return exchange.send(exchange.good())
        rest = _begin(exchange, after)
        exchange.hang()
        return exchange.send_bytes(rest)

    return fault


def reset() -> Fault:
    """
    Reset the connection before the answer.
    """
    return Exchange.reset


def truncate(after: int) -> Fault:
    """
    Announce the full length, but close the connection normally after `after` bytes.
    """

    def fault(exchange: Exchange) -> None:
        _begin(exchange, after)
        exchange.close()

    return fault


def replace_body(change: Callable[[bytes], bytes]) -> Fault:
    """
    Send different content with the same status and headers, and the right length.
    """

    def fault(exchange: Exchange) -> None:
        answer = exchange.good()
        exchange.send(replace(answer, body=change(answer.body)))

    return fault


def flip_first_bit(body: bytes) -> bytes:
    """
    Return different content of the same length; for `replace_body`.
    """
    return bytes([body[0] ^ 1]) + body[1:]


def drip(size: int, pause_seconds: float) -> Fault:
    """
    Send the body in small pieces, with pauses until the server is released.
    """

    def fault(exchange: Exchange) -> None:
        body = _begin(exchange, 0)
        for start in range(0, len(body), size):
            exchange.send_bytes(body[start : start + size])
            exchange.pause(pause_seconds)

    return fault


def raw(data: bytes) -> Fault:
    """
    Send these bytes and close.
    """

    def fault(exchange: Exchange) -> None:
        exchange.send_bytes(data)
        exchange.close()

    return fault
