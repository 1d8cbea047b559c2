"""
The faults of an HTTP server, S3 or git, that affect every answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

from soak.station import Fault
from tests.support.http.faults import answer_with, drip, hang, reset, truncate
from tests.support.http.loopback import Answer, LoopbackServer
from tests.support.http.loopback import Fault as Spoil

SPOILS: Mapping[str, Spoil] = {
    "answers 500": answer_with(Answer(500)),
    "answers 503": answer_with(Answer(503)),
    "answers nonsense": answer_with(Answer(200, {}, b"<html>Sign in to the network</html>")),
    "never answers": hang(),
    "stops in its answers": hang(after=60),
    "drips": drip(7, 0.2),
    "truncates": truncate(60),
    "resets": reset(),
    "resets in its answers": reset(after=60),
}


@contextmanager
def _spoilt(servers: Sequence[LoopbackServer], spoil: Spoil) -> Iterator[None]:
    for server in servers:
        server.inject(spoil)
    try:
        yield
    finally:
        for server in servers:
            server.heal()


@contextmanager
def _down(servers: Sequence[LoopbackServer]) -> Iterator[None]:
    for server in servers:
        server.stop()
    try:
        yield
    finally:
        for server in servers:
            server.start()


def http_faults(*servers: LoopbackServer) -> dict[str, Fault]:
    """
    Return the faults of servers that fail together.
    """
    spoilt = {f"server {name}": partial(_spoilt, servers, spoil) for name, spoil in SPOILS.items()}
    return {**spoilt, "server is down": partial(_down, servers)}
