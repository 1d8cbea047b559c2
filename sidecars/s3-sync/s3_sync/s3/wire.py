"""
One HTTP/1.1 connection of the pool, on asyncio, parsed by llhttp (httptools).

It sends one request at a time, limits every wait, follows no redirect, and refuses a response
whose end cannot be determined.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from s3_sync.reasons import S3Error

with suppress(ModuleNotFoundError):  # of the extra `daemon`: where only releases are published
    import httptools

IDLE_SECONDS = 30.0
# S3 never sends a larger response that is kept in memory: a page of 1,000 keys of maximum length,
# percent-encoded, has less than 5 MiB.
BODY_LIMIT_BYTES = 32 << 20
# Everything except the body: interim responses, headers, chunk sizes and extensions, trailers. S3
# sends 10 KiB at most.
FRAMING_LIMIT_BYTES = 64 << 10

Sink = Callable[[bytes], object]
Check = Callable[[dict[str, str]], object]


class WireError(S3Error):
    """
    No complete response arrived; the state of the object is unknown.
    """


@dataclass(slots=True)
class Answer:
    """
    A response: status, headers (lower-case names), and the body unless a sink received it.
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(slots=True)
class _Exchange:
    """
    A request on a connection, until its response has ended.

    Args:
        waiter: Ends with the response, or with the error.
        limit: Fires when the response is too late; it moves with each arrival.
        ends_at: When the response is too late in any case, in the time of the event loop.
        held: The body, unless the sink gets it.
        framing_bytes: How much arrived since the last byte of the body.
    """

    waiter: asyncio.Future[None]
    limit: asyncio.Timeout
    ends_at: float
    sink: Sink | None
    check: Check | None
    answer: Answer = field(default_factory=Answer)
    held: bytearray = field(default_factory=bytearray)
    framing_bytes: int = 0

    def end(self, error: BaseException | None = None) -> None:
        if self.waiter.done():
            return
        if error is None:
            self.waiter.set_result(None)
        else:
            self.held.clear()  # the error may be kept
            self.waiter.set_exception(error)


class Connection(asyncio.Protocol):
    """
    One connection; call :meth:`request` again only after the last response has ended.

    Attributes:
        is_usable: Whether another request may be sent.
        has_begun: Whether something of the last response has arrived.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._exchange: _Exchange | None = None
        self._heard_at = 0.0
        self.is_usable = self.has_begun = False

    @property
    def idle_seconds(self) -> float:
        return self._loop.time() - self._heard_at

    async def request(
        self, head: bytes, sink: Sink | None, seconds: float, check: Check | None = None
    ) -> Answer:
        """
        Send a request without body and return the response.

        Args:
            head: The complete request line and headers.
            sink: Receives the body of a 200 or 206 as it arrives; an exception it raises ends the
                request and is raised here.
            check: Checks the headers of a 200 or 206 before the body arrives; like the sink, it
                may raise.
            seconds: The limit for the whole exchange; IDLE_SECONDS limits each silence.

        Raises:
            WireError: Timeout, reset, truncated or malformed response.
        """
        assert self._transport is not None
        self.is_usable = self.has_begun = False
        self._heard_at = now = self._loop.time()
        limit = asyncio.timeout_at(now + min(IDLE_SECONDS, seconds))
        self._exchange = exchange = _Exchange(
            self._loop.create_future(), limit, now + seconds, sink, check
        )
        try:
            async with limit:
                self._transport.write(head)
                await exchange.waiter
        except TimeoutError:
            if not limit.expired():  # an error of the sink
                raise
            said = f"no complete response in time, and no data for {self.idle_seconds:.0f} s"
            raise WireError("request_timeout", said) from None
        finally:
            self._exchange = None
            if not self.is_usable:
                self.close()
        exchange.answer.body = bytes(exchange.held)
        return exchange.answer

    def close(self) -> None:
        """
        Close the connection at once; after a half-read body it is unusable.
        """
        self.is_usable = False
        if self._transport is not None:
            self._transport.abort()

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None or exchange.waiter.done():  # nobody asked for it
            self.close()
            return
        self._heard_at = self._loop.time()
        exchange.framing_bytes += len(data)
        try:
            self._parser.feed_data(data)
            if exchange.framing_bytes > FRAMING_LIMIT_BYTES:
                said = f"the response has over {FRAMING_LIMIT_BYTES} bytes without a body"
                raise WireError("server_error", said)
        except Exception as found:  # noqa: BLE001 - whatever the sink raises ends the request
            error: BaseException = found
            if isinstance(found, httptools.HttpParserCallbackError):
                error = found.__context__ or found
            elif isinstance(found, (httptools.HttpParserError, httptools.HttpParserUpgrade)):
                error = WireError("server_error", f"the response is not HTTP/1.1: {found}")
            self.is_usable = False
            exchange.end(error)
        if not exchange.waiter.done():
            exchange.limit.reschedule(min(self._heard_at + IDLE_SECONDS, exchange.ends_at))

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_usable = False
        if self._exchange is not None:
            part = "during" if self.has_begun else "before"
            said = f"the server closed the connection {part} its response"
            self._exchange.end(WireError("connection_lost", said))

    # --- httptools, while data is received

    @property
    def _current(self) -> _Exchange:
        assert self._exchange is not None
        return self._exchange

    def on_message_begin(self) -> None:
        if self._current.waiter.done():
            raise WireError("server_error", "the server sent more than one response")
        self.has_begun = True

    def on_header(self, name: bytes, value: bytes) -> None:
        answer = self._current.answer
        if answer.status < 200:  # otherwise it is a trailer, which is not used
            answer.headers[name.decode("latin-1").lower()] = value.decode("latin-1").strip()

    def on_headers_complete(self) -> None:
        exchange = self._current
        exchange.answer.status = status = self._parser.get_status_code()
        headers = exchange.answer.headers
        if status < 200:  # interim, such as 103 Early Hints: the final response follows
            headers.clear()
            return
        is_success = status in (200, 206)
        has_end = "content-length" in headers or "chunked" in headers.get("transfer-encoding", "")
        if not has_end and is_success:
            raise WireError("server_error", "the response does not declare its length")
        if not has_end and status not in (204, 304):  # its text may never end
            exchange.end()
        if not is_success:
            exchange.sink = None
        elif exchange.check is not None:
            exchange.check(headers)

    def on_body(self, body: bytes) -> None:
        exchange = self._current
        exchange.framing_bytes = 0
        if exchange.sink is not None:
            exchange.sink(body)
            return
        exchange.held += body
        if len(exchange.held) > BODY_LIMIT_BYTES:
            raise WireError("server_error", f"the response has over {BODY_LIMIT_BYTES} bytes")

    def on_message_complete(self) -> None:
        exchange = self._current
        if exchange.answer.status >= 200 and not exchange.waiter.done():
            self.is_usable = self._parser.should_keep_alive()
            exchange.end()
