"""
Polls between cycles whether an object is unchanged, over one separate blocking connection.

Lists and downloads use the pool. A poll does not: after a sleep the process's caches are cold,
and asyncio and llhttp take five times the CPU of a bare send and receive, this module 1.3 times
(docs/decisions/0002-data-plane.md).
"""

from __future__ import annotations

import re
import socket
import time

from s3_sync.s3.pool import PATIENCE, TlsContext
from s3_sync.s3.wire import FRAMING_LIMIT_BYTES, HttpOrigin

SECONDS = 5.0
_END = b"\r\n\r\n"
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


class PollConnection:
    """
    One connection to one origin, without a proxy; a doubtful response is left to a cycle.

    Args:
        seconds: The limit for connecting, for each silence, and for the whole response.
        keep_seconds: See :class:`s3_sync.s3.pool.Patience`.
    """

    def __init__(
        self,
        origin: HttpOrigin,
        context: TlsContext | None,
        seconds: float = SECONDS,
        keep_seconds: float = PATIENCE.keep_seconds,
    ) -> None:
        self._origin = origin
        self._seconds = seconds
        self._keep_seconds = keep_seconds
        self._context = context
        self._socket: socket.socket | None = None
        self._heard_at = 0.0

    def status(self, head: bytes) -> bytes:
        """
        Send a request and return the response status; empty if no complete response arrived.

        Args:
            head: The complete request line and headers.
        """
        if time.monotonic() - self._heard_at > self._keep_seconds:
            self.close()
        is_kept = self._socket is not None
        try:
            try:
                return self._ask(head)
            except OSError:
                self.close()
                # A kept connection may have been closed meanwhile.
                return self._ask(head) if is_kept else b""
        except (OSError, UnicodeError):
            self.close()
            return b""

    def close(self) -> None:
        """
        Close the connection.
        """
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _ask(self, head: bytes) -> bytes:
        if self._socket is None:
            self._socket = self._connect()
        ends_at = time.monotonic() + self._seconds
        self._socket.sendall(head)
        answer = b""
        while _END not in answer and len(answer) < FRAMING_LIMIT_BYTES:
            piece = self._socket.recv(FRAMING_LIMIT_BYTES)
            if not piece:
                raise ConnectionResetError
            answer += piece
            if time.monotonic() > ends_at:  # each piece was in time, but the response is not
                raise TimeoutError
        self._heard_at = time.monotonic()
        found = _STATUS.match(answer)
        status = found[1] if found is not None and _END in answer else b""
        if status != b"304" or b"\r\nconnection: close\r\n" in answer.lower():
            self.close()  # a body is not read: a cycle will read it
        elif not answer.endswith(_END):  # a 304 has no body
            self.close()
            return b""
        return status

    def _connect(self) -> socket.socket:
        origin = self._origin
        found = socket.create_connection((origin.host, origin.port), timeout=self._seconds)
        if self._context is None:
            return found
        try:
            return self._context().wrap_socket(found, server_hostname=origin.host)
        except BaseException:
            found.close()
            raise
