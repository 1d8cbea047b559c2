"""
Looks up names in DNS: the addresses of a host, and the KDCs of a realm.

Each look-up runs in its own thread, so that a dead name server delays its caller only briefly.
"""

from __future__ import annotations

import ctypes
import random
import re
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from threading import Thread
from typing import Literal, TypeVar

from kerberos_sidecar.krb5.kdcs import KERBEROS_PORT, LAST_PORT, Address, Way

_T = TypeVar("_T")

# How long to wait for DNS; glibc asks a second server after 2 s (`overlay`).
LOOK_UP_SECONDS = 5.0
# How long to wait for URI records once SRV records have arrived: some servers drop queries for
# unknown record types.
_URI_SECONDS = 1.0

_ANSWER_BYTES = 65535
_IN, _SRV, _URI = 1, 33, 256
_POINTER, _LABELS_MOST = 0xC0, 128
# Replaces the weight 0, which RFC 2782 gives "a very small chance".
_LIGHTEST = 0.01
# These errors are answers, not failures of DNS.
_NO_HOST = (socket.EAI_NONAME, socket.EAI_NODATA)
# `h_errno`: no such name, and no such records for the name.
_NO_RECORDS = (1, 4)

Addresses = Callable[[float], list[Address]]
"""Waits for addresses, up to a number of seconds; raises ``OSError``, such as ``TimeoutError``."""


class Undecided(Exception):
    """
    DNS did not return the KDCs of a realm.
    """


def addresses(host: str, last: dict[str, list[Address]]) -> Addresses:
    """
    Start to look up a host; return a function that waits for its addresses.

    Args:
        last: The last result, by host: used if DNS fails or is slow, and removed if DNS answers
            that the host does not exist.
    """

    def look_up() -> list[Address]:
        try:
            infos = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except UnicodeError:
            raise OSError(f"{host} is not a valid host name") from None
        except socket.gaierror as error:
            if error.errno in _NO_HOST:
                last.pop(host, None)
            raise
        found: list[Address] = list(dict.fromkeys((info[0], str(info[4][0])) for info in infos))
        last[host] = found
        return found

    if re.fullmatch(r"[\d.]+|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*(%\w+)?", host):
        return lambda _: look_up()  # an address needs no query
    began_at, asked = time.monotonic(), _soon(look_up)

    def wait(seconds: float) -> list[Address]:
        if host in last:
            # Counted from the start: hosts are looked up in parallel, so one wait covers them all.
            seconds = max(0.0, began_at + seconds - time.monotonic())
        try:
            return asked.result(seconds)
        except OSError:
            # Another thread may have removed it since.
            if (found := last.get(host)) is None:
                raise
            return found

    return wait


def kdcs_by_dns(
    realm: str,
    wait_seconds: float = LOOK_UP_SECONDS,
    chance: Callable[[float], float] = random.expovariate,
    *,
    takes_uris: bool = True,
) -> list[Way] | None:
    """
    Return the ways to the KDCs of a realm (RFC 4120, 7.2.3), best first, UDP before TCP.

    URI records override SRV records, as in libkrb5. ``None`` if one names an HTTPS proxy.

    Args:
        chance: Draws the rank of a record from its weight; a lower rank is asked earlier.
        takes_uris: Whether to ask for URI records.

    Raises:
        Undecided: DNS failed, or did not answer in time.
    """
    ends_at = time.monotonic() + wait_seconds
    kinds: tuple[Literal["udp", "tcp"], ...] = ("udp", "tcp")
    asked = {kind: _soon(_query(f"_kerberos._{kind}.{realm}.", _SRV)) for kind in kinds}
    uris = _soon(_query(f"_kerberos.{realm}.", _URI)) if takes_uris else None
    found: list[Way] = []
    failed = False
    for kind, records in asked.items():
        try:
            answer = records.result(max(0.0, ends_at - time.monotonic()))
            found += [Way(host, port, kind) for host, port in _services(answer, chance)]
        except (TimeoutError, OSError):
            failed = True
    with suppress(TimeoutError, OSError):
        # An answer that has already arrived counts, even if no time is left.
        most = _URI_SECONDS if found else max(0.0, ends_at - time.monotonic())
        if uris is not None and (named := _by_uri(uris.result(most), chance)):
            return None if None in named else [way for way in named if way is not None]
    if failed and not found:
        raise Undecided(f"DNS did not return the KDCs of {realm}")
    return found


def _by_uri(answer: bytes, chance: Callable[[float], float]) -> list[Way | None]:
    """
    Parse ``krb5srv:flags:transport:host:port``; ``None`` for a record that only libkrb5 can use.

    https://web.mit.edu/kerberos/krb5-latest/doc/admin/realm_config.html
    """
    found: list[tuple[tuple[int, float], Way | None]] = []
    for data, _ in _records(answer, _URI):
        text = data[4:].decode(errors="replace")
        match = re.fullmatch(
            r"krb5srv:[a-z]*:(udp|tcp):([^:]+)(?::(\d{1,5}))?", text, re.IGNORECASE
        )
        way = None
        if match and int(match[3] or KERBEROS_PORT) <= LAST_PORT:
            transport: Literal["udp", "tcp"] = "udp" if match[1].lower() == "udp" else "tcp"
            way = Way(match[2].rstrip("."), int(match[3] or KERBEROS_PORT), transport)
        found.append((_turn(data, chance), way))
    return [way for _, way in sorted(found, key=lambda one: one[0])]


def _services(answer: bytes, chance: Callable[[float], float]) -> list[tuple[str, int]]:
    """
    Return the hosts and ports of SRV records (RFC 2782), best first.
    """
    found = []
    for data, place in _records(answer, _SRV):
        host = _name(answer, place + 6)
        if host:  # "." means that the service does not exist
            found.append((_turn(data, chance), (host, int.from_bytes(data[4:6]))))
    return [service for _, service in sorted(found)]


def _turn(data: bytes, chance: Callable[[float], float]) -> tuple[int, float]:
    """
    Return the sort key of a record: its priority, then a random rank that favors heavy weights, so
    that pods spread their requests over the KDCs (RFC 2782, RFC 7553).
    """
    weight = int.from_bytes(data[2:4])
    return int.from_bytes(data[:2]), chance(weight or _LIGHTEST)


def _records(answer: bytes, kind: int) -> Iterator[tuple[bytes, int]]:
    """
    Yield the data and offset of each record of a type (RFC 1035, 4.1); stop at a truncated one.
    """
    place = 12
    for _ in range(int.from_bytes(answer[4:6])):
        place = _after_name(answer, place) + 4
    for _ in range(int.from_bytes(answer[6:8])):
        place = _after_name(answer, place) + 10
        size = int.from_bytes(answer[place - 2 : place])
        if place + size > len(answer):
            return
        if int.from_bytes(answer[place - 10 : place - 8]) == kind and size > 6:
            yield answer[place : place + size], place
        place += size


def _after_name(answer: bytes, place: int) -> int:
    while place < len(answer) and answer[place]:
        if answer[place] >= _POINTER:
            return place + 2
        place += 1 + answer[place]
    return place + 1


def _name(answer: bytes, place: int) -> str:
    """
    Return the name at an offset, following pointers; empty for the root and for invalid names.
    """
    labels: list[str] = []
    for _ in range(_LABELS_MOST):
        size = answer[place] if place < len(answer) else 0
        if not size:
            return ".".join(labels)
        if size >= _POINTER:
            place = int.from_bytes(answer[place : place + 2]) & 0x3FFF
        elif place + size >= len(answer):
            return ""
        else:
            labels.append(answer[place + 1 : place + 1 + size].decode("ascii", "replace"))
            place += 1 + size
    return ""


def _query(name: str, kind: int) -> Callable[[], bytes]:
    """
    Return a function that queries DNS for the raw answer; empty if no such records exist.

    Raises:
        OSError: From that function: DNS failed, or did not answer.
    """

    def ask() -> bytes:
        library = ctypes.CDLL("libresolv.so.2")
        library.__h_errno_location.restype = ctypes.POINTER(ctypes.c_int)
        answer = ctypes.create_string_buffer(_ANSWER_BYTES)
        size = library.res_query(name.encode(), _IN, kind, answer, _ANSWER_BYTES)
        if size >= 0:
            return answer.raw[:size]
        if library.__h_errno_location().contents.value not in _NO_RECORDS:
            raise OSError("DNS does not answer")
        return b""

    return ask


def _soon(function: Callable[[], _T]) -> Future[_T]:
    """
    Call a function in a daemon thread, which does not delay the end of the process.
    """
    future: Future[_T] = Future()

    def fill() -> None:
        try:
            future.set_result(function())
        except OSError as error:
            future.set_exception(error)

    Thread(target=fill, name="look up", daemon=True).start()
    return future
