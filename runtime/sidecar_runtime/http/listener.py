"""
An HTTP server that answers probes despite hostile clients and used-up limits.

One thread, started once, serves all connections and waits for none of them: the limit of processes
may be used up, and a client may send nothing, or read nothing. Each connection is closed after one
answer.
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
from sidecar_runtime.http.page import CONTENT_SECURITY_POLICY
from sidecar_runtime.logs import get_logger

CONNECTIONS = 32
CLIENT_SECONDS = 5.0
ANSWER_SECONDS = 30.0
REQUEST_BYTES = 64 << 10
RETRY_SECONDS = 0.2

_END = re.compile(rb"\n\r?\n")
_FIRST_LINE = re.compile(rb"\s*(\S+) (\S+) HTTP/1\.\d\r?\n")
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

    It serves up to ``CONNECTIONS`` connections; another one closes the oldest. A client has
    ``CLIENT_SECONDS`` to send a request of up to ``REQUEST_BYTES``, and ``ANSWER_SECONDS`` to read
    the answer.

    Args:
        listening: A socket that listens.
        answer: Returns the answer to a path, from memory: all other clients wait for it.
    """

    def __init__(self, listening: socket.socket, answer: Callable[[str], Answer]) -> None:
        self._listening = listening
        self._answer = answer
        self._loop = asyncio.new_event_loop()
        self._closed = asyncio.Event()
        self._talks: dict[asyncio.Task[None], None] = {}
        """Oldest first."""

    @property
    def port(self) -> int:
        return int(self._listening.getsockname()[1])

    def start(self) -> None:
        """
        Start the thread, which ends with the process or with :meth:`close`.

        Raises:
            RuntimeError: No thread can be started.
        """
        threading.Thread(target=self._run, name="http", daemon=True).start()
        if self._listening.family != socket.AF_UNIX:
            host, port = self._listening.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            log.info("http_listening", address=f"{shown}:{port}")

    def close(self) -> None:
        """
        Accept no further connections. All of them, the socket and the thread end soon.
        """
        with suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(self._closed.set)

    def _run(self) -> None:
        with self._listening, asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._listening.setblocking(False)
        accepting = asyncio.create_task(self._accept())
        await self._closed.wait()
        accepting.cancel()

    async def _accept(self) -> None:
        while True:
            try:
                client, _ = await self._loop.sock_accept(self._listening)
            except OSError:  # no descriptor is free, for example; the client still waits
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if len(self._talks) >= CONNECTIONS:
                next(iter(self._talks)).cancel()
            talk = self._loop.create_task(self._talk(client))
            self._talks[talk] = None
            talk.add_done_callback(self._talks.pop)
            await asyncio.sleep(0)  # a flood of connections must not keep earlier ones waiting

    async def _talk(self, client: socket.socket) -> None:
        with client, suppress(OSError):  # the client has gone, or its time is up
            client.setblocking(False)
            request = b""
            async with asyncio.timeout(CLIENT_SECONDS):
                while not _END.search(request):
                    received = await self._loop.sock_recv(client, REQUEST_BYTES)
                    request += received
                    if not received or len(request) > REQUEST_BYTES:
                        return
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._loop.sock_sendall(client, self._answer_to(request))

    def _answer_to(self, request: bytes) -> bytes:
        found = _FIRST_LINE.match(request)
        method, path = (part.decode("latin-1") for part in found.groups()) if found else ("", "")
        log.debug("http_request", method=method, path=path)
        if method not in ("GET", "HEAD"):
            status = HTTPStatus.METHOD_NOT_ALLOWED if found else HTTPStatus.BAD_REQUEST
            answer = Answer(status, b'{"error": "GET and HEAD of HTTP/1 only"}\n')
        else:
            try:
                answer = self._answer(path)
            except Exception:
                log.exception("http_answer_failed", path=path)
                answer = Answer(HTTPStatus.INTERNAL_SERVER_ERROR, b'{"error": "see the log"}\n')
        status, body, content_type = answer
        head = f"HTTP/1.1 {status.value} {status.phrase}\nContent-Type: {content_type}\n"
        head += f"Content-Length: {len(body)}\n{_HEADERS}\n"
        return head.replace("\n", "\r\n").encode() + (b"" if method == "HEAD" else body)


def listen(bind: tuple[str, int], setting: str) -> socket.socket:
    """
    Return a socket that listens on a host, or on all addresses of both families if it is empty.

    Args:
        setting: The name of the setting for `bind`, for the error.

    Raises:
        SettingsError: The address cannot be bound (a port in use, an address of another host).
    """
    host, port = bind
    has_both = socket.has_dualstack_ipv6()  # else the kernel has no IPv6; probes come from the node
    name = host or ("::" if has_both else "0.0.0.0")  # noqa: S104
    try:
        family, *_, address = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)[0]
        is_dual = has_both and family == socket.AF_INET6
        return socket.create_server(address[:2], family=family, dualstack_ipv6=is_dual)
    except (OSError, UnicodeError) as error:
        why = (getattr(error, "strerror", None) or str(error)).partition(" (while attempting")[0]
        if getattr(error, "errno", None) == errno.EADDRINUSE:
            why += " (another container of this pod?): set another port, or 0 for any free one"
        problem = Problem(setting, f"{host}:{port}", f"cannot listen there: {why}")
        raise SettingsError([problem]) from error
