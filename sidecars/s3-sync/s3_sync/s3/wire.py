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
from typing import NamedTuple

from sidecar_runtime.errors import SidecarError

with suppress(ModuleNotFoundError):  # of the extra `daemon`: where only releases are published
    import httptools

IDLE_SECONDS = 30.0
# S3 never sends a larger response that is kept in memory: a page of 1,000 keys of maximum length,
# percent-encoded, has less than 5 MiB.
BODY_LIMIT_BYTES = 32 << 20
# Everything except the body: interim responses, headers, chunk sizes and extensions, trailers. S3
# sends 10 KiB at most, and many short headers take twenty times their length in memory.
FRAMING_LIMIT_BYTES = 64 << 10
HEADERS_LIMIT = 1000

Sink = Callable[[bytes], object]
Check = Callable[[dict[str, str]], object]


ADVICE = {
    "client_error": "Follow the quoted error. If it gives no cause, check the endpoint and any "
    "proxy in front of it.",
    "connection_lost": "If it persists, check for a proxy or firewall that cuts connections.",
    "endpoint_unreachable": "Check AWS_ENDPOINT_URL, the security group, the route or VPC endpoint "
    "to S3, and HTTPS_PROXY and NO_PROXY.",
    "name_unresolved": "Check AWS_REGION, AWS_ENDPOINT_URL and the DNS of the cluster.",
    "proxy_refused": "Check HTTPS_PROXY, HTTP_PROXY and NO_PROXY. Put user and password into the "
    "proxy's URL, percent-encoded: http://USER:PASSWORD@HOST:PORT.",
    "request_timeout": "Check the route to S3 (VPC endpoint, security group, proxy) for dropped "
    "packets.",
    "server_error": "If it persists, check the server and any proxy in front of it.",
    "tls_failed": "If a company CA signs the traffic, set AWS_CA_BUNDLE to its bundle.",
}


class WireError(SidecarError):
    """
    No complete response arrived; the state of the object is unknown.
    """

    def __init__(self, reason: str, message: str, advice: str = "") -> None:
        super().__init__(reason, message, advice or ADVICE[reason])


class StaleConnection(Exception):
    """
    The server closed a kept connection before it received the request: retry on a new one.
    """


class HttpOrigin(NamedTuple):
    """
    The target of requests: scheme, host and port, and the proxy to use (URL, or None).
    """

    scheme: str
    host: str
    port: int
    proxy: str | None = None

    @property
    def name(self) -> str:
        """
        The host without the dot that makes a name absolute: certificates and servers know none.
        """
        return self.host.rstrip(".")

    @property
    def host_header(self) -> str:
        """
        The ``Host`` header; without the port if it is the scheme's default.
        """
        shown = f"[{self.name}]" if ":" in self.name else self.name
        is_default = self.port == (443 if self.scheme == "https" else 80)
        return shown if is_default else f"{shown}:{self.port}"


@dataclass(slots=True)
class Answer:
    """
    A response: status, headers (lower-case names), and the body unless a sink received it.
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class Connection(asyncio.Protocol):
    """
    One connection; call :meth:`request` again only after the last response has ended.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[Answer] | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._expect(None, None)
        self._is_new = True
        self._heard_at = 0.0
        self._ends_at = 0.0
        # One timer for many requests: it fires when the first of them could time out.
        self._watch_handle: asyncio.TimerHandle | None = None
        self.is_usable = True

    def _expect(self, sink: Sink | None, check: Check | None) -> None:
        """
        Prepare for the next response.
        """
        self._answer = Answer()
        self._held = bytearray()
        self._framing_bytes = 0
        self._sink = sink
        self._check = check
        self._has_begun = False
        self._ends_with_connection = False

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
            StaleConnection: The server has closed a kept connection, or does not respond on it.
            WireError: Timeout, reset, truncated or malformed response.
        """
        assert self._transport is not None
        if self._transport.is_closing():
            raise StaleConnection
        self._waiter = self._loop.create_future()
        self._expect(sink, check)
        self._heard_at = self._loop.time()
        self._ends_at = self._heard_at + seconds
        self._transport.write(head)
        self._watch_until(self._heard_at + min(IDLE_SECONDS, seconds))
        is_complete = False
        try:
            answer = await self._waiter
            is_complete = True
            return answer
        finally:
            self._waiter = None
            self._sink = None
            self._held.clear()
            self._is_new = False
            if not is_complete:
                self.close()

    def close(self) -> None:
        """
        Close the connection at once; after a half-read body it is unusable.
        """
        self.is_usable = False
        if self._watch_handle is not None:
            self._watch_handle.cancel()
            self._watch_handle = None
        if self._transport is not None:
            self._transport.abort()

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._waiter is None:
            self.close()
            return
        self._heard_at = self._loop.time()
        try:
            self._framing_bytes += len(data)
            self._parser.feed_data(data)
            self._pass_on()
            if self._framing_bytes > FRAMING_LIMIT_BYTES:
                raise WireError(
                    "server_error",
                    f"the response has over {FRAMING_LIMIT_BYTES} bytes of headers, chunk lines or "
                    "trailers without a byte of the body",
                )
        except httptools.HttpParserCallbackError as error:
            self._fail(error.__context__ if isinstance(error.__context__, Exception) else error)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(WireError("server_error", f"the response is not HTTP/1.1: {error}"))
        except Exception as error:  # noqa: BLE001 - whatever the sink raises ends the request
            self._fail(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_usable = False
        if self._waiter is None or self._waiter.done():
            return
        if not self._has_begun and not self._is_new:
            self._fail(StaleConnection())
            return
        if self._ends_with_connection and exc is None:
            self._end()
            return
        part = "during" if self._has_begun else "before"
        why = f" ({exc.strerror or exc})" if isinstance(exc, OSError) else ""
        self._fail(
            WireError(
                "connection_lost", f"the server closed the connection {part} its response{why}"
            )
        )

    # --- httptools

    def on_message_begin(self) -> None:
        if self._waiter is None or self._waiter.done():
            self.is_usable = False
            raise WireError("server_error", "the server sent more than one response")
        self._has_begun = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._answer.status >= 200:  # a trailer, which is not used
            return
        if len(self._answer.headers) == HEADERS_LIMIT:
            raise WireError("server_error", f"the response has over {HEADERS_LIMIT} headers")
        self._answer.headers[name.decode("latin-1").lower()] = value.decode("latin-1").strip()

    def on_headers_complete(self) -> None:
        self._answer.status = status = self._parser.get_status_code()
        headers = self._answer.headers
        if status < 200:  # interim, such as 103 Early Hints: the final response follows
            headers.clear()
            return
        has_end = "content-length" in headers or "chunked" in headers.get("transfer-encoding", "")
        if not has_end and status not in (204, 304):
            if status in (200, 206):
                raise WireError("server_error", "the response does not declare its length")
            self._ends_with_connection = True
        if status not in (200, 206):
            self._sink = None
        elif self._check is not None:
            self._check(headers)

    def on_body(self, body: bytes) -> None:
        self._framing_bytes = 0
        # Pieces are joined first: in a list, a piece of two bytes takes fifty.
        self._held += body
        if self._sink is None and len(self._held) > BODY_LIMIT_BYTES:
            raise WireError("server_error", f"the response has over {BODY_LIMIT_BYTES} bytes")

    def on_message_complete(self) -> None:
        if self._answer.status < 200:
            return
        if not self._parser.should_keep_alive():
            self.is_usable = False
        self._pass_on()
        self._end()

    # ---

    def _pass_on(self) -> None:
        """
        Pass the received bytes to the sink.
        """
        if self._sink is not None and self._held:
            piece = bytes(self._held)
            self._held.clear()
            self._sink(piece)

    def _end(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._answer.body = bytes(self._held)
            self._waiter.set_result(self._answer)

    def _fail(self, error: Exception) -> None:
        self.is_usable = False
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)

    def _watch_until(self, limit: float) -> None:
        """
        Check for a timeout at this time or earlier.
        """
        handle = self._watch_handle
        if handle is None or handle.when() > limit:
            if handle is not None:
                handle.cancel()
            self._watch_handle = self._loop.call_at(limit, self._watch)

    def _watch(self) -> None:
        """
        Fail the request if its time is up; otherwise check again when it could next be.
        """
        self._watch_handle = None
        if self._waiter is None:
            return
        now = self._loop.time()
        limit = min(self._heard_at + IDLE_SECONDS, self._ends_at)
        if now < limit:
            self._watch_until(limit)
            return
        if not (self._has_begun or self._is_new) and now < self._ends_at:
            self._fail(StaleConnection())  # a firewall forgot the connection and drops packets
            return
        silent = now - self._heard_at
        is_slow = self._has_begun and silent < IDLE_SECONDS
        why = "the data arrives too slowly" if is_slow else f"no data for {silent:.0f} s"
        self._fail(WireError("request_timeout", f"the response was not complete in time ({why})"))
