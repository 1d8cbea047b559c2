"""
Sends a message to the KDCs of a realm, and returns the first answer.

After a second without an answer, the next KDC is asked too. Earlier requests stay open until the
end, because a slow KDC may still answer. With any number of KDCs, the last is asked within 11 s if
DNS answers for all of them.
"""

from __future__ import annotations

import errno
import re
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Literal

from kerberos_sidecar.krb5.kdcs import KERBEROS_PORT, LAST_PORT, Address, Way
from kerberos_sidecar.krb5.names import Addresses

ANSWER_LIMIT_BYTES = 1 << 20

# The first byte of an answer (RFC 4120, 5.10), and the error code that only this KDC may return.
_AS_REP, _KRB_ERROR = 0x6B, 0x7E
_SVC_UNAVAILABLE = b"\xa6\x03\x02\x01\x1d"


Hear = Callable[[Way, str, float], object]
"""Receives how a KDC behaved: the problem (empty: it answered), and after how many seconds."""

LookUp = Callable[[str], Addresses]
"""Starts to look up a host."""


@dataclass(frozen=True, slots=True)
class Patience:
    """
    How long to wait, in seconds.

    Args:
        next_seconds: For one KDC, before the next is asked too.
        favorite_seconds: The minimum of that for the KDC that has just answered: the next message
            contains proof of the key, and every KDC that receives a wrong proof counts it.
        favorite_share: The same, as a multiple of the time that this answer took.
        all_seconds: Until every KDC has been asked; many KDCs share it, such as a name with ten
            addresses.
        last_seconds: For answers after every KDC has been asked.
        silent_share: The share of `next_seconds` after which a KDC counts as silent. It is less
            than 1, because each of many KDCs gets a little less than `next_seconds`.
    """

    next_seconds: float = 1.0
    favorite_seconds: float = 3.0
    favorite_share: float = 2.0
    all_seconds: float = 11.0
    last_seconds: float = 10.0
    silent_share: float = 0.9


PATIENCE = Patience()


class Unanswered(Exception):
    """
    No KDC has answered.

    Args:
        kind: ``silent`` if at least one KDC has neither answered nor refused; ``garbage`` if at
            least one answer was not a Kerberos message.
        said: The last failure.
    """

    def __init__(self, kind: Literal["refused", "silent", "garbage"], said: str) -> None:
        super().__init__(said)
        self.kind = kind
        self.said = said


def ways(kdcs: Iterable[str], *, prefers_tcp: bool, is_tcp_only: bool) -> list[Way] | None:
    """
    Return the ways to the KDCs in krb5.conf; ``None`` if one needs libkrb5 (an HTTPS proxy).
    """
    places = []
    for text in kdcs:
        match = re.fullmatch(r"(?:\[([^]]+)\]|([^\s:/]+))(?::(\d{1,5}))?", text.strip())
        if match is None or int(match[3] or KERBEROS_PORT) > LAST_PORT:
            return None
        places.append((match[1] or match[2], int(match[3] or KERBEROS_PORT)))
    tcp = [Way(host, port, "tcp") for host, port in dict.fromkeys(places)]
    udp = [Way(host, port, "udp") for host, port in dict.fromkeys(places)]
    return tcp if is_tcp_only else tcp + udp if prefers_tcp else udp + tcp


def carry(
    message: bytes,
    ways: Sequence[Way],
    patience: Patience,
    hear: Hear,
    look_up: LookUp,
    *,
    first_seconds: float = 0.0,
) -> tuple[Way, bytes, float]:
    """
    Return the way of the first answer, the answer, and the seconds that it took.

    Args:
        hear: Called for each KDC that answered, failed, or stayed silent for long enough.
        first_seconds: How long only the first way is tried; 0: no longer than the rest.

    Raises:
        Unanswered: No KDC sent a usable answer.
    """
    with closing(_Round(message, ways, patience, hear, look_up)) as round_:
        return round_.run(first_seconds)


class _Round:
    """
    One message, and the KDCs that may answer it.
    """

    def __init__(
        self,
        message: bytes,
        ways: Sequence[Way],
        patience: Patience,
        hear: Hear,
        look_up: LookUp,
    ) -> None:
        self._message = message
        self._patience = patience
        self._hear = hear
        self._names = {host: look_up(host) for host in {way.host for way in ways}}
        self._waiting: deque[tuple[Way, Address | None]] = deque((way, None) for way in ways)
        self._late = set(ways)
        self._selector = selectors.DefaultSelector()
        self._failed = Unanswered("refused", "DNS does not answer")  # unless a KDC fails

    def close(self) -> None:
        for key in list(self._selector.get_map().values()):
            key.data.close()
        self._selector.close()

    def run(self, first_seconds: float) -> tuple[Way, bytes, float]:
        alone_seconds, next_at = first_seconds, time.monotonic()
        all_at = next_at + first_seconds + self._patience.all_seconds
        while self._waiting or self._selector.get_map():
            now = time.monotonic()
            if self._waiting and (now >= next_at or not self._selector.get_map()):
                is_asked = self._open(*self._waiting.popleft())
                now = time.monotonic()
                if not is_asked and (self._waiting or not self._selector.get_map()):
                    next_at = now
                elif self._waiting:
                    share_seconds = max(0.0, all_at - now) / len(self._waiting)
                    next_at = now + (
                        alone_seconds or min(self._patience.next_seconds, share_seconds)
                    )
                else:
                    next_at = now + max(alone_seconds, self._patience.last_seconds)
                alone_seconds = 0.0
            elif now >= next_at:
                self._tell_silent()
                if self._failed.kind == "garbage":
                    break
                raise Unanswered("silent", "no answer")
            for key, _ in self._selector.select(max(0.0, next_at - time.monotonic())):
                if answer := self._advance(key.data):
                    self._tell_silent()
                    seconds = key.data.seconds
                    self._hear(key.data.way, "", seconds)
                    return key.data.way, answer, seconds
        raise self._failed

    def _tell_silent(self) -> None:
        """
        Report the KDCs that had enough time to answer but did not.
        """
        enough_seconds = self._patience.next_seconds * self._patience.silent_share
        for key in list(self._selector.get_map().values()):
            if key.data.seconds >= enough_seconds:
                self._hear(key.data.way, "no answer", key.data.seconds)

    def _open(self, way: Way, address: Address | None) -> bool:
        """
        Start to ask a KDC; a host with several addresses is asked at one after the other.

        A name that is not resolved in time is moved to the end of the queue, once.

        Returns:
            Whether it, or DNS, may still answer: ``False`` if there is nothing to wait for.
        """
        try:
            if address is None:
                address, *others = self._names[way.host](self._patience.next_seconds)
                self._waiting.extendleft((way, other) for other in reversed(others))
            call = _Call(way, address, self._message)
            self._selector.register(call, call.events, call)
        except TimeoutError:
            if way in self._late:
                self._late.remove(way)
                self._waiting.append((way, None))
            else:
                self._hear(way, "DNS does not answer", self._patience.next_seconds)
            return bool(self._waiting)
        except OSError as error:
            self._fail(way, error.strerror or str(error), 0.0)
            return False
        return True

    def _advance(self, call: _Call) -> bytes:
        """
        Return an answer; empty if it is incomplete or unusable.
        """
        try:
            answer = call.advance()
            self._selector.modify(call, call.events, call)
            if not answer:
                return b""
            if _is_kerberos(answer) and not _is_unavailable(answer):
                return answer
            said: str
            kind: Literal["refused", "garbage"]
            said, kind = "it reports that it is unavailable", "refused"
            if not _is_kerberos(answer):
                said, kind = "the answer is not a Kerberos message", "garbage"
        except OSError as error:
            said, kind = error.strerror or str(error), "refused"
        self._fail(call.way, said, call.seconds, kind)
        self._selector.unregister(call)
        call.close()
        return b""

    def _fail(
        self, way: Way, said: str, seconds: float, kind: Literal["refused", "garbage"] = "refused"
    ) -> None:
        self._hear(way, said, seconds)
        if kind == "garbage" or self._failed.kind != "garbage":
            self._failed = Unanswered(kind, said)


class _Call:
    """
    A message that is sent one way, to one address.

    Raises:
        OSError: On creation and from `advance`: the message was refused.
    """

    def __init__(self, way: Way, address: Address, message: bytes) -> None:
        family, place = address
        self.way = way
        self._began_at = time.monotonic()
        kind = socket.SOCK_DGRAM if way.transport == "udp" else socket.SOCK_STREAM
        self._socket = socket.socket(family, kind)
        self._socket.setblocking(False)
        self._got = b""
        self._left = b""
        self.events = selectors.EVENT_READ
        try:
            if way.transport == "udp":
                self._socket.connect((place, way.port))
                self._socket.send(message)
            else:
                self._left = len(message).to_bytes(4) + message
                self.events = selectors.EVENT_WRITE
                with suppress(BlockingIOError):
                    self._socket.connect((place, way.port))
        except OSError:
            self.close()
            raise

    @property
    def seconds(self) -> float:
        """
        The seconds since it was created.
        """
        return time.monotonic() - self._began_at

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def advance(self) -> bytes:
        """
        Send or receive without blocking; return the answer once it is complete, else empty.
        """
        if code := self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(code, errno.errorcode.get(code, "refused"))
        if self._left:
            self._left = self._left[self._socket.send(self._left) :]
            if not self._left:
                self.events = selectors.EVENT_READ
            return b""
        content = self._socket.recv(65536)
        if self.way.transport == "udp":
            return content
        self._got += content
        size = int.from_bytes(self._got[:4])
        if len(self._got) >= 4 and (size > ANSWER_LIMIT_BYTES or len(self._got) > 4 + size):
            return self._got[:1]  # too short for a Kerberos message
        if not content:
            raise OSError(errno.ECONNRESET, "the connection was closed without an answer")
        return self._got[4:] if 4 <= len(self._got) == 4 + size else b""


def _is_kerberos(answer: bytes) -> bool:
    """
    Whether it is an AS-REP or a KRB-ERROR of the length that it declares (X.690, 8.1.3).
    """
    if len(answer) < 2 or answer[0] not in (_AS_REP, _KRB_ERROR):
        return False
    if answer[1] < 0x80:
        return len(answer) == 2 + answer[1]
    width = answer[1] & 0x7F
    return len(answer) == 2 + width + int.from_bytes(answer[2 : 2 + width])


def _is_unavailable(answer: bytes) -> bool:
    """
    Whether a KDC reports that it is unavailable, so that another KDC should be asked.
    """
    return answer[0] == _KRB_ERROR and _SVC_UNAVAILABLE in answer[:100]
