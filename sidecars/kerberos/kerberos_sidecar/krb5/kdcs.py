"""
What is known of the KDCs: how each one behaved when it was last asked, and who answered last.
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
"""Of a host: family and address."""


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
        Host and port, as krb5.conf names them.
        """
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Heard:
    """
    What came of asking a KDC.

    Args:
        said: Why it is of no use, in words; empty if it answered.
        transport: How it was asked.
        seconds: How long it took, or was waited for.
        at: Unix time.
    """

    said: str
    transport: str
    seconds: float
    at: float

    def __str__(self) -> str:
        """
        Say it for the status page.
        """
        said = self.said or "answered"
        return f"{said} ({self.transport.upper()}, {self.seconds:.2f} s, {iso(self.at)})"


@dataclass
class Kdcs:
    """
    Shared by threads: each entry is replaced whole, and nobody changes one that is there.

    Attributes:
        favorites: Which way the last answer came, by realm.
        heard: By realm and KDC.
        found: The ways that DNS named last, by realm: they outlive an outage of DNS.
        addresses: Those that it named last, by host: the same.
    """

    favorites: dict[str, Way] = field(default_factory=dict)
    heard: dict[str, dict[str, Heard]] = field(default_factory=dict)
    found: dict[str, list[Way]] = field(default_factory=dict)
    addresses: dict[str, list[Address]] = field(default_factory=dict)
    # Principals of one realm hear of its KDCs at the same time.
    _lock: Lock = field(default_factory=Lock)

    def hear(self, realm: str, way: Way, said: str, seconds: float) -> None:
        """
        Remember how a KDC behaved just now.
        """
        heard = Heard(said, way.transport, seconds, time.time())
        with self._lock:
            self.heard[realm] = {**self.heard.get(realm, {}), way.kdc: heard}

    def keep(self, realm: str, ways: Iterable[Way]) -> None:
        """
        Forget the KDCs of a realm that are not among these any more.
        """
        names = {way.kdc for way in ways}
        with self._lock:
            before = self.heard.get(realm, {})
            self.heard[realm] = {kdc: heard for kdc, heard in before.items() if kdc in names}
