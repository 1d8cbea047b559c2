"""
An HTTP server that answers probes despite hostile clients and used-up limits.

One thread, started once, serves all connections and waits for none of them: the limit
of processes may be used up, and a client may send nothing, or read nothing. Each
connection is closed after one answer.

A burst of silent connections pushes out no probe: what a client has sent is read and
answered before a connection is closed to make room.
"""

import asyncio
import errno
import re
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import NamedTuple

from sidecar_runtime.errors import Problem, SettingsError
from sidecar_runtime.http.status import CONTENT_SECURITY_POLICY
from sidecar_runtime.logs import get_logger

# More than asyncio accepts in one round, so that a client keeps its place for several.
CONNECTIONS = 128
# How many connections the kernel keeps until this thread gets some CPU. It drops more,
# and the client tries again after a second: too late for a probe, as a longer queue
# would be.
BACKLOG = 256
CLIENT_SECONDS = 30.0
REQUEST_BYTES = 64 << 10

_FIRST_LINE = re.compile(r"(\S+) (\S+) HTTP/1\.\d", re.ASCII)
_HEADERS = f"""\
Content-Security-Policy: {CONTENT_SECURITY_POLICY}
X-Content-Type-Options: nosniff
Cache-Control: no-store
Connection: close
Server: sidecar
"""

log = get_logger("http")


class Answer(NamedTuple):
    """
    The answer to a GET request.
    """

    status: HTTPStatus
    body: bytes
    content_type: str = "application/json"


class Listener:
    """
    Answers GET and HEAD requests on one socket; no request changes anything.

    It serves up to ``CONNECTIONS`` connections, and for a moment those that arrive
    together; another one closes the oldest. A client has ``CLIENT_SECONDS`` to send a
    request of up to ``REQUEST_BYTES``, and to read the answer.

    Args:
        listening: A socket that listens.
        answer: Returns the answer to a path, from memory: all other clients wait for
            it.
    """

    def __init__(
        self, listening: socket.socket, answer: Callable[[str], Answer]
    ) -> None:
        self._listening = listening
        self._answer = answer
        self._loop = asyncio.new_event_loop()
        self._closed = asyncio.Event()
        self._open: dict[asyncio.WriteTransport, None] = {}
        """The connections, oldest first."""

    def start(self) -> None:
        """
        Start the thread, which ends with the process or with :meth:`close`.

        Raises:
            RuntimeError: No thread can be started.
        """
        threading.Thread(target=self._run, name="http", daemon=True).start()
        if self._listening.family != socket.AF_UNIX:
            host, port, *_ = self._listening.getsockname()
            shown = f"[{host}]" if ":" in host else host
            log.info("http_listening", address=f"{shown}:{port}")

    def close(self) -> None:
        """
        Accept no further connections. All of them, the socket and the thread end soon.
        """
        with suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(self._closed.set)

    def _run(self) -> None:
        # asyncio retries a failed accept (no descriptor is free) every second; the
        # client waits.
        self._loop.set_exception_handler(
            lambda _, e: log.debug("http_failed", error=e["message"])
        )
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(
            self._talk, sock=self._listening, limit=REQUEST_BYTES
        )
        self._listening.listen(BACKLOG)
        await self._closed.wait()
        server.close()

    async def _talk(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._open[writer.transport] = None
        # In the next round, after what has arrived is read: a probe that waited long for
        # its turn has sent its request.
        self._loop.call_later(0.0, self._make_room)
        # drain() waits until everything is sent
        writer.transport.set_write_buffer_limits(0)
        try:
            async with asyncio.timeout(CLIENT_SECONDS):
                # All of it has one limit: lines without end would keep the loop, which
                # never pauses while there is something to read.
                head = await reader.readuntil(b"\r\n\r\n")
                request, _, _ = head.decode("latin-1").partition("\r\n")
                writer.write(self._answer_to(request))
                await writer.drain()
        except (OSError, EOFError, asyncio.LimitOverrunError):
            pass  # the client has gone, its time is up, or the request is too long
        finally:
            self._open.pop(writer.transport, None)
            writer.transport.abort()

    def _make_room(self) -> None:
        """
        Close the oldest connections beyond the limit.
        """
        while len(self._open) > CONNECTIONS:
            oldest = next(iter(self._open))
            del self._open[oldest]
            oldest.abort()

    def _answer_to(self, request: str) -> bytes:
        found = _FIRST_LINE.fullmatch(request)
        method, path = found.groups() if found else ("", "")
        log.debug("http_request", method=method, path=path)
        if method not in ("GET", "HEAD"):
            answer = Answer(
                HTTPStatus.METHOD_NOT_ALLOWED,
                b'{"error": "GET and HEAD of HTTP/1 only"}\n',
            )
        else:
            try:
                answer = self._answer(path)
            except Exception:
                log.exception("http_answer_failed", path=path)
                answer = Answer(
                    HTTPStatus.INTERNAL_SERVER_ERROR, b'{"error": "see the log"}\n'
                )
        status, body, content_type = answer
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\nContent-Type: {content_type}\n"
            f"Content-Length: {len(body)}\n{_HEADERS}\n"
        )
        if method == "HEAD":
            body = b""
        return head.replace("\n", "\r\n").encode() + body


def listen(bind: tuple[str, int], setting: str) -> socket.socket:
    """
    Return a socket that listens on a host, or on all addresses of both families if it
    is empty.

    Args:
        setting: The name of the setting for `bind`, for the error.

    Raises:
        SettingsError: The address cannot be bound (a port in use, an address of another
            host).
    """
    host, port = bind
    # without IPv6 in the kernel, those of IPv4 are all
    place = host or ("::" if socket.has_dualstack_ipv6() else "")
    is_6 = ":" in place
    family = socket.AF_INET6 if is_6 else socket.AF_INET
    try:
        return socket.create_server((place, port), family=family, dualstack_ipv6=is_6)
    except (OSError, ValueError) as error:
        why = (getattr(error, "strerror", None) or str(error)).partition(
            " (while attempting"
        )[0]
        if getattr(error, "errno", None) == errno.EADDRINUSE:
            why += " (another container of this pod?): set another port, or 0 for any free one"
        raise SettingsError(
            [Problem(setting, f"{host}:{port}", f"cannot listen there: {why}")]
        ) from error
