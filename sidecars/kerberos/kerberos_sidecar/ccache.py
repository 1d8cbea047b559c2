"""
Reads a FILE ccache, except its keys and tickets, and reduces one to its ticket-granting ticket.

The format is MIT's, version 4:
https://web.mit.edu/kerberos/krb5-latest/doc/formats/ccache_file_format.html
"""

from __future__ import annotations

from dataclasses import dataclass

from kerberos_sidecar.principal import Octets, Principal

SIZE_LIMIT_BYTES = 1 << 20

_MAGIC = b"\x05\x04"
_TAG_OFFSET = 1


@dataclass(frozen=True, slots=True)
class Ticket:
    """
    The ticket-granting ticket of a ccache; times are Unix times by this machine's clock.

    Args:
        renew_until: 0 if the ticket is not renewable.
        clock_offset_seconds: How far the KDC's clock is ahead of ours, as measured by libkrb5.
    """

    principal: Principal
    starts_at: int
    ends_at: int
    renew_until: int
    clock_offset_seconds: float

    @property
    def lifetime_seconds(self) -> int:
        return self.ends_at - self.starts_at


def read_ticket(content: bytes) -> Ticket:
    """
    Return the TGT of a ccache, valid or expired.

    Raises:
        ValueError: The content is not a ccache, or contains no TGT for its principal and realm.
    """
    return _read(content)[0]


def reduce(content: bytes) -> bytes:
    """
    Return a ccache with nothing but the TGT.

    It has no ``refresh_time`` entry, unlike libgssapi's ccaches: with one, readers append 292 bytes
    at each acquisition past half of the ticket's life (MIT 1.20.1, 2026-11).

    Raises:
        ValueError: As in :func:`read_ticket`.
    """
    _, head, tgt = _read(content)
    return head + tgt


def _read(content: bytes) -> tuple[Ticket, bytes, bytes]:
    """
    Return the TGT, the bytes before the first entry, and the bytes of the TGT's entry.
    """
    if content[:2] != _MAGIC or len(content) > SIZE_LIMIT_BYTES:
        raise ValueError("is not a version 4 ccache")
    octets = Octets(content)
    octets.skip(2)
    found: tuple[Ticket, bytes, bytes] | None = None
    try:
        offset_seconds = _read_header(Octets(octets.take(octets.integer(2))))
        principal = _read_principal(octets)
        if not principal.is_text:
            raise ValueError("belongs to a principal whose name is not text")
        tgt, head = Principal(("krbtgt", principal.realm), principal.realm), content[: octets.at]
        while octets.left:  # a consumer may have added tens of thousands of entries
            start = octets.at
            server, ticket = _read_entry(octets, offset_seconds)
            if found is None and server == tgt and ticket.principal == principal:
                found = ticket, head, content[start : octets.at]
    except EOFError:
        raise ValueError("ends in the middle of an entry") from None
    if found is None:
        raise ValueError(f"contains no ticket-granting ticket for {principal}")
    return found


def _read_header(header: Octets) -> float:
    offset_seconds = 0.0
    while header.left:
        tag = header.integer(2)
        field = Octets(header.take(header.integer(2)))
        if tag == _TAG_OFFSET:
            offset_seconds = field.integer(4, signed=True) + field.integer(4, signed=True) / 1e6
    return offset_seconds


def _read_principal(octets: Octets) -> Principal:
    octets.skip(4)  # the name type
    count = octets.integer(4)
    realm = octets.counted_text(4)
    if count > octets.left:
        raise EOFError
    return Principal(tuple(octets.counted_text(4) for _ in range(count)), realm)


def _read_entry(octets: Octets, offset_seconds: float) -> tuple[Principal, Ticket]:
    """
    Return the server of an entry, and the ticket for it.
    """
    client = _read_principal(octets)
    server = _read_principal(octets)
    octets.skip(2)  # the encryption type of the session key
    octets.skip(octets.integer(4))
    authenticated_at, starts_at, ends_at, renew_until = (octets.integer(4) for _ in range(4))
    octets.skip(5)  # whether it is a session key, and flags
    for _ in range(2):  # addresses, authorization data
        for _ in range(octets.integer(4)):
            octets.skip(2)
            octets.skip(octets.integer(4))
    octets.skip(octets.integer(4))  # the ticket
    octets.skip(octets.integer(4))  # the second ticket
    offset = round(offset_seconds)  # times in the file are by the KDC's clock
    return server, Ticket(
        client,
        (starts_at or authenticated_at) - offset,
        ends_at - offset,
        renew_until and renew_until - offset,
        offset_seconds,
    )
