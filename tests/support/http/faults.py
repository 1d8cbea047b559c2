"""
Faults of an HTTP answer in transit, for any `LoopbackServer`.

Faults that are specific to S3 (its error documents, redirects) are in `tests.support.aws.fake_s3`.
"""

from collections.abc import Callable
from dataclasses import replace

from tests.support.http.loopback import Answer, Exchange, Fault, framed


def answer_with(answer: Answer) -> Fault:
    """
    Send this answer instead of the good one.
    """
    return lambda exchange: exchange.send(answer)


def first(action: Callable[[], object]) -> Fault:
    """
    Run the action, then answer normally: a change between two requests.
    """

    def fault(exchange: Exchange) -> None:
        action()
        exchange.send(exchange.good())

    return fault


def hang(after: int | None = None) -> Fault:
    """
    Hang before the answer, or after that many bytes of its body; continue when released.
    """

    def fault(exchange: Exchange) -> None:
        if after is None:
            exchange.hang()
            return exchange.send(exchange.good())
        answer = exchange.good()
        exchange.send_head(answer.status, framed(answer))
        exchange.send_bytes(answer.body[:after])
        exchange.hang()
        return exchange.send_bytes(answer.body[after:])

    return fault


def reset(after: int | None = None) -> Fault:
    """
    Reset the connection before the answer, or after that many bytes of its body.
    """
    return _break_off(after, Exchange.reset)


def truncate(after: int) -> Fault:
    """
    Announce the full length, but close the connection normally after `after` bytes.
    """
    return _break_off(after, Exchange.close)


def _break_off(after: int | None, end: Callable[[Exchange], None]) -> Fault:
    def fault(exchange: Exchange) -> None:
        if after is not None:
            answer = exchange.good()
            exchange.send_head(answer.status, framed(answer))
            exchange.send_bytes(answer.body[:after])
        end(exchange)

    return fault


def altered(change: Callable[[Answer], Answer], *, close: bool = False) -> Fault:
    """
    Send the good answer after a change; then optionally close the connection.
    """

    def fault(exchange: Exchange) -> None:
        exchange.send(change(exchange.good()))
        if close:
            exchange.close()

    return fault


def _with(answer: Answer, **headers: str) -> Answer:
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    return replace(answer, headers={**answer.headers, **more})


def replace_body(change: Callable[[bytes], bytes]) -> Fault:
    """
    Send different content with the same status and headers, and the right length.
    """
    return altered(lambda answer: replace(answer, body=change(answer.body)))


def flip_first_bit(body: bytes) -> bytes:
    """
    Return different content of the same length; for `replace_body`.
    """
    return bytes([body[0] ^ 1]) + body[1:]


def unframed() -> Fault:
    """
    Send neither Content-Length nor chunks: the body ends when the connection closes.
    """

    def fault(exchange: Exchange) -> None:
        answer = exchange.good()
        exchange.send_head(answer.status, answer.headers)
        exchange.send_bytes(answer.body)
        exchange.close()

    return fault


def chunked(size: int = 7, *, end: bool = True) -> Fault:
    """
    Answer with Transfer-Encoding: chunked; without `end`, close before the last chunk.
    """

    def fault(exchange: Exchange) -> None:
        answer = exchange.good()
        exchange.send_head(answer.status, {**answer.headers, "Transfer-Encoding": "chunked"})
        for start in range(0, len(answer.body), size):
            chunk = answer.body[start : start + size]
            exchange.send_bytes(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        if end:
            exchange.send_bytes(b"0\r\n\r\n")
        else:
            exchange.close()

    return fault


def drip(size: int, pause_seconds: float) -> Fault:
    """
    Send the body in small pieces, with pauses until the server is released.
    """

    def fault(exchange: Exchange) -> None:
        answer = exchange.good()
        exchange.send_head(answer.status, framed(answer))
        for start in range(0, len(answer.body), size):
            exchange.send_bytes(answer.body[start : start + size])
            exchange.pause(pause_seconds)

    return fault


def close_after() -> Fault:
    """
    Answer normally with `Connection: close`, and close.
    """
    return altered(lambda answer: _with(answer, Connection="close"), close=True)


def close_silently() -> Fault:
    """
    Answer normally and close without announcing it, as after an idle timeout.
    """
    return altered(lambda answer: answer, close=True)


def raw(data: bytes) -> Fault:
    """
    Send these bytes and close.
    """

    def fault(exchange: Exchange) -> None:
        exchange.send_bytes(data)
        exchange.close()

    return fault
