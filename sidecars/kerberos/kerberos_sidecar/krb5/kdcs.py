"""
Remembers the KDCs: the result of the last request to each, and which of them answered last.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from threading import Lock
from typing import Literal

from kerberos_sidecar.formats.moment import iso

KERBEROS_PORT = 88
LAST_PORT = (1 << 16) - 1

Address = tuple[int, str]
"""The address family and address of a host."""


@dataclass(frozen=True, slots=True)
class Way:
    """
    One way to one KDC.
    """

    host: str
    port: int
    transport: Literal["udp", "tcp"]

    @property
    def kdc(self) -> str:
        """
        Host and port, in the notation of krb5.conf.
        """
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Heard:
    """
    The result of a request to a KDC.

    Args:
        said: The problem, as text; empty if the KDC answered.
        transport: ``udp`` or ``tcp``.
        seconds: How long the answer took, or how long it was awaited.
        at: Unix time.
    """

    said: str
    transport: str
    seconds: float
    at: float

    def __str__(self) -> str:
        """
        Return the text for the status page.
        """
        said = self.said or "answered"
        return f"{said} ({self.transport.upper()}, {self.seconds:.2f} s, {iso(self.at)})"


@dataclass
class Kdcs:
    """
    The shared state about KDCs; for threads, each entry is replaced and never changed in place.

    Attributes:
        favorites: The way of the last answer, by realm.
        heard: The result of the last request, by realm and KDC.
        found: The ways that DNS returned last, by realm; used while DNS fails.
        addresses: The addresses that DNS returned last, by host; used while DNS fails.
    """

    favorites: dict[str, Way] = field(default_factory=dict)
    heard: dict[str, dict[str, Heard]] = field(default_factory=dict)
    found: dict[str, list[Way]] = field(default_factory=dict)
    addresses: dict[str, list[Address]] = field(default_factory=dict)
    # Principals of one realm update `heard` concurrently.
    _lock: Lock = field(default_factory=Lock)

    def hear(self, realm: str, way: Way, said: str, seconds: float) -> None:
        """
        Record the result of a request to a KDC.
        """
        heard = Heard(said, way.transport, seconds, time.time())
        with self._lock:
            self.heard[realm] = {**self.heard.get(realm, {}), way.kdc: heard}

    def keep(self, realm: str, ways: Iterable[Way]) -> None:
        """
        Forget the KDCs of a realm that are no longer among these.
        """
        names = {way.kdc for way in ways}
        with self._lock:
            before = self.heard.get(realm, {})
            self.heard[realm] = {kdc: heard for kdc, heard in before.items() if kdc in names}
