"""
Names of principals, the octets of Kerberos' files, and the reader of FILE ccaches;
without libkrb5.

A ccache is read except for its keys and tickets, and reduced to its ticket-granting
ticket. The format is MIT's, version 4:
https://web.mit.edu/kerberos/krb5-latest/doc/formats/ccache_file_format.html
"""

import re
from dataclasses import dataclass

# The longest name that is accepted and shown, in characters; real names have dozens.
NAME_LIMIT = 1024

_PART = r"((?:\\[^\s\0]|[^\\/@\s\0])+)"

CCACHE_LIMIT_BYTES = 1 << 20

_CCACHE_MAGIC = b"\x05\x04"
_TAG_OFFSET = 1


@dataclass(frozen=True, slots=True)
class Principal:
    """
    A principal; its ``str`` is in MIT Kerberos' notation.

    Args:
        realm: Empty if the text did not include one.
    """

    components: tuple[str, ...]
    realm: str = ""

    def __str__(self) -> str:
        name = "/".join(_escape(part) for part in self.components)
        return f"{name}@{_escape(self.realm)}" if self.realm else name

    @property
    def is_text(self) -> bool:
        """
        Whether the name is printable and short; bytes of a key that were misread are
        not.
        """
        name = "".join((*self.components, self.realm))
        return name.isprintable() and "\ufffd" not in name and len(name) < NAME_LIMIT

    def is_named(self, wanted: "Principal") -> bool:
        """
        Whether this is the wanted principal; without a realm, `wanted` matches any
        realm.
        """
        return wanted == self or (
            not wanted.realm and wanted.components == self.components
        )

    def resembles(self, other: "Principal") -> bool:
        """
        Whether both differ in case at most: Active Directory answers in its own case.
        """
        return str(self).casefold() == str(other).casefold()


def parse_principal(text: str) -> Principal:
    """
    Parse ``component/component@REALM``, with or without a realm; backslashes escape.

    Raises:
        ValueError: The text is not a principal name.
    """
    if not re.fullmatch(rf"{_PART}(/{_PART})*(@{_PART})?", text):
        raise ValueError("is not a principal such as airflow@EXAMPLE.COM")
    found = re.findall(rf"([/@]?){_PART}", text)
    parts = [re.sub(r"\\(.)", r"\1", part) for _, part in found]
    realm = parts.pop() if found[-1][0] == "@" else ""
    return Principal(tuple(parts), realm)


def _escape(text: str) -> str:
    return re.sub(r"([\\/@])", r"\\\1", text)


class Octets:
    """
    A byte string with a read position; keytabs and ccaches are read from front to back.

    Raises:
        EOFError: From every method, if fewer bytes are left than it reads.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.at = 0

    @property
    def left(self) -> int:
        return len(self._content) - self.at

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise EOFError
        self.at += count
        return self._content[self.at - count : self.at]

    def integer(self, count: int, *, signed: bool = False) -> int:
        return int.from_bytes(self.take(count), signed=signed)

    def counted_text(self, width: int) -> str:
        """
        Read text that is prefixed with its length, an integer of `width` bytes.
        """
        return self.take(self.integer(width)).decode(errors="replace")


@dataclass(frozen=True, slots=True)
class Ticket:
    """
    The ticket-granting ticket of a ccache; times are Unix times by this machine's
    clock.

    Args:
        clock_offset_seconds: How far the KDC's clock is ahead of ours, as measured by
            libkrb5.
    """

    principal: Principal
    starts_at: int
    ends_at: int
    clock_offset_seconds: float

    @property
    def lifetime_seconds(self) -> int:
        return self.ends_at - self.starts_at


def strip_to_tgt(content: bytes) -> tuple[bytes, Ticket]:
    """
    Return a ccache with nothing but the TGT, and the TGT, valid or expired.

    It has no ``refresh_time`` entry, unlike libgssapi's ccaches: with one, readers
    append 292 bytes at each acquisition past half of the ticket's life (MIT 1.20.1,
    2026-11).

    Raises:
        ValueError: The content is not a ccache, or contains no TGT for its principal
            and realm.
    """
    if content[:2] != _CCACHE_MAGIC or len(content) > CCACHE_LIMIT_BYTES:
        raise ValueError("is not a version 4 ccache")
    octets = Octets(content)
    octets.take(2)
    found: tuple[bytes, Ticket] | None = None
    try:
        offset_seconds = _read_header(Octets(octets.take(octets.integer(2))))
        principal = _read_principal(octets)
        if not principal.is_text:
            raise ValueError("belongs to a principal whose name is not text")
        tgt = Principal(("krbtgt", principal.realm), principal.realm)
        head = content[: octets.at]
        while octets.left:  # a consumer may have added tens of thousands of entries
            start = octets.at
            server, ticket = _read_entry(octets, offset_seconds)
            if found is None and server == tgt and ticket.principal == principal:
                found = head + content[start : octets.at], ticket
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
            offset_seconds = (
                field.integer(4, signed=True) + field.integer(4, signed=True) / 1e6
            )
    return offset_seconds


def _read_principal(octets: Octets) -> Principal:
    octets.take(4)  # the name type
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
    octets.take(2)  # the encryption type of the session key
    octets.take(octets.integer(4))
    authenticated_at, starts_at, ends_at = (octets.integer(4) for _ in range(3))
    octets.take(9)  # how long it is renewable, whether it is a session key, and flags
    for _ in range(2):  # addresses, authorization data
        for _ in range(octets.integer(4)):
            octets.take(2)
            octets.take(octets.integer(4))
    octets.take(octets.integer(4))  # the ticket
    octets.take(octets.integer(4))  # the second ticket
    offset = round(offset_seconds)  # times in the file are by the KDC's clock
    return server, Ticket(
        client,
        (starts_at or authenticated_at) - offset,
        ends_at - offset,
        offset_seconds,
    )
