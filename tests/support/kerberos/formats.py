"""
Builds keytabs and ccaches from the format descriptions, without our code.
"""

import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

STARTS_AT = 1_700_000_000
KEY = bytes(range(200, 232))
"""The key that no error, log or status may show."""


def keytab(*entries: bytes) -> bytes:
    """Return a keytab with records from `entry`."""
    return b"\5\2" + b"".join(entries)


def entry(
    name: str = "airflow",
    realm: str = "EXAMPLE.COM",
    *,
    kvno: int = 2,
    enctype: int = 18,
    long_kvno: bool = True,
    key: bytes = KEY,
) -> bytes:
    """Return the record of one key, in format version 2."""
    components = name.split("/")
    body = struct.pack(">H", len(components)) + _short(realm)
    body += b"".join(map(_short, components))
    body += struct.pack(">IIB", 1, 1_700_000_000, kvno & 255)
    body += struct.pack(">HH", enctype, len(key)) + key
    if long_kvno:
        body += struct.pack(">I", kvno)
    return struct.pack(">i", len(body)) + body


def hole(size_bytes: int) -> bytes:
    """Return the gap that `ktremove` leaves where an entry was."""
    return struct.pack(">i", -size_bytes) + bytes(size_bytes)


def ccache(
    *credentials: bytes, name: str = "airflow", offset_seconds: int = 0
) -> bytes:
    header = struct.pack(">HHii", 1, 8, offset_seconds, 0)
    content = (
        b"\5\4"
        + struct.pack(">H", len(header))
        + header
        + _principal("EXAMPLE.COM", [name])
    )
    return content + b"".join(credentials)


def tgt(
    ends_at: int,
    *,
    name: str = "airflow",
    realm: str = "EXAMPLE.COM",
) -> bytes:
    times = (STARTS_AT, STARTS_AT, ends_at, 0)
    return _credential(
        _principal(realm, [name]),
        _principal(realm, ["krbtgt", realm]),
        times,
        0x40C00000,
        b"ticket",
    )


def config(key: str, value: bytes) -> bytes:
    """Return a configuration entry, in which libkrb5 stores its own data."""
    server = _principal("X-CACHECONF:", ["krb5_ccache_conf_data", key])
    return _credential(
        _principal("EXAMPLE.COM", ["airflow"]), server, (0, 0, 0, 0), 0, value
    )


def _make_large(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 30)


def _make_many_entries(path: Path) -> None:
    credential = tgt(1, name="a", realm="R")
    path.write_bytes(ccache(*[credential] * ((1 << 20) // len(credential) - 1)))


SABOTAGE: dict[str, Callable[[Path], object]] = {
    "nothing": lambda path: None,
    "1 GiB": _make_large,
    "entries without end": _make_many_entries,
    "pipe": os.mkfifo,
    "link to the keytab": lambda path: path.symlink_to("../keytab/airflow.keytab"),
    "link to itself": lambda path: path.symlink_to(path),
    "text": lambda path: path.write_text("not a ccache"),
}
"""The objects that a consumer with write access can put in place of a ccache."""


def _credential(
    client: bytes, server: bytes, times: Sequence[int], flags: int, ticket: bytes
) -> bytes:
    address = struct.pack(">IH", 1, 2) + _long(b"\x7f\0\0\1")
    return (
        client
        + server
        + struct.pack(">H", 18)
        + _long(KEY)
        + struct.pack(">IIIIBI", *times, 0, flags)
        + address
        + struct.pack(">I", 0)
        + _long(ticket)
        + _long(b"")
    )


def _principal(realm: str, components: Sequence[str]) -> bytes:
    names = (realm, *components)
    return struct.pack(">II", 1, len(components)) + b"".join(
        _long(name.encode()) for name in names
    )


def _short(text: str) -> bytes:
    return struct.pack(">H", len(text.encode())) + text.encode()


def _long(content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + content
