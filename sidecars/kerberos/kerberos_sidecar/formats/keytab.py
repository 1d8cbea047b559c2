"""
Reads the principals, key versions and encryption types in a keytab, and a short digest per key.

libkrb5 reports "No credentials cache found" for seven different faults of a keytab (MIT 1.20.1,
2026-11), so the keytab is checked before libkrb5 reads it. The format is MIT's, versions 1 and 2:
https://web.mit.edu/kerberos/krb5-latest/doc/formats/keytab_file_format.html
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import sys
from dataclasses import dataclass
from typing import Literal

from kerberos_sidecar.formats.octets import Octets
from kerberos_sidecar.formats.principal import Principal
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.volume.files import read_file

SIZE_LIMIT_BYTES = 1 << 20
# A real entry has a few hundred bytes. A much larger length means that the file is not a keytab.
ENTRY_LIMIT_BYTES = 1 << 16

# https://www.iana.org/assignments/kerberos-parameters
ENCTYPES = {
    1: "des-cbc-crc",
    3: "des-cbc-md5",
    16: "des3-cbc-sha1",
    17: "aes128-cts-hmac-sha1-96",
    18: "aes256-cts-hmac-sha1-96",
    19: "aes128-cts-hmac-sha256-128",
    20: "aes256-cts-hmac-sha384-192",
    23: "rc4-hmac",
    25: "camellia128-cts-cmac",
    26: "camellia256-cts-cmac",
}

_BASE64 = re.compile(rb"\s*BQ[IE][A-Za-z0-9+/\s]+=*\s*")


class KeytabError(SidecarError):
    """
    The keytab cannot be used; the message says why and never contains its content.
    """


@dataclass(frozen=True, slots=True)
class Key:
    """
    The metadata of one key in a keytab.

    Args:
        added_at: Unix time; ktpass of Active Directory always writes 0.
        trace: 16 bits of a digest of the key, to detect that the key has changed.
        start, end: The byte range of its record in the file, which includes the key itself.
    """

    principal: Principal
    kvno: int
    enctype: int
    added_at: int
    trace: str
    start: int
    end: int

    @property
    def enctype_name(self) -> str:
        return ENCTYPES.get(self.enctype, f"enctype {self.enctype}")


@dataclass(frozen=True, slots=True)
class Keytab:
    """
    A parsed keytab, with at least one key.
    """

    path: str
    keys: tuple[Key, ...]

    def select(self, wanted: Principal | None) -> Principal:
        """
        Return the wanted principal with its realm, or the first principal for ``None``.

        Raises:
            KeytabError: The keytab has no key for that principal, or none in that realm.
        """
        principals = list(dict.fromkeys(key.principal for key in self.keys))
        if wanted is None:
            return principals[0]
        for found in principals:
            if found.is_named(wanted):
                return found
        shown = ", ".join(map(str, principals[:5])) + (", …" if len(principals) > 5 else "")
        if wanted.realm and wanted.realm not in {found.realm for found in principals}:
            raise KeytabError(
                "realm_absent",
                f"{self.path} has no key for the realm {wanted.realm}, only for {shown}",
                "Correct the realm (usually in capitals), or mount a keytab for that realm.",
            )
        raise KeytabError(
            "principal_absent",
            f"{self.path} has no key for {wanted}, only for {shown}",
            "Correct KERBEROS_PRINCIPAL, or export a keytab for that principal.",
        )

    def kvno_of(self, principal: Principal) -> int:
        """
        Return the newest version of a principal's keys.
        """
        return max(key.kvno for key in self.keys if key.principal == principal)


def read_keytab(path: str) -> Keytab:
    """
    Read a keytab file.

    Raises:
        KeytabError: The file is missing, unreadable, empty, truncated, or not a keytab.
    """
    content = read_content(path)
    try:
        keys = parse_keytab(content)
    except EOFError:
        raise KeytabError(
            "keytab_truncated",
            f"{path} ends in the middle of an entry, after {len(content)} bytes",
            "Copy it again in binary mode, and create the Secret from the whole file.",
        ) from None
    except ValueError:
        raise _explain_garbage(path, content) from None
    if not keys:
        raise KeytabError(
            "keytab_empty",
            f"{path} contains no key ({len(content)} bytes)",
            "Export it again with ktadd, ktpass or msktutil.",
        )
    return Keytab(path, keys)


def read_content(path: str) -> bytes:
    """
    Return the bytes of a keytab file; follow symlinks, because a Secret's files are symlinks.

    Raises:
        KeytabError: The file is missing, unreadable, too large, or not a regular file.
    """
    try:
        return read_file(path, SIZE_LIMIT_BYTES, follow=True)
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise KeytabError(
                "keytab_garbage",
                f"{path} is not a keytab: {error.strerror}",
                "Create the Secret from the keytab file itself, in binary.",
            ) from None
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise KeytabError(
                "keytab_missing",
                f"the keytab {path} does not exist",
                "Mount the keytab's Secret there, as a folder, or correct KERBEROS_KEYTAB.",
            ) from None
        raise KeytabError(
            "keytab_unreadable",
            f"{path} cannot be read as uid {os.getuid()} with group {os.getgid()}: "
            f"{error.strerror}",
            "Make it readable with the pod's fsGroup, or defaultMode: 0440 on the Secret.",
        ) from None


def parse_keytab(content: bytes) -> tuple[Key, ...]:
    """
    Return the metadata of the keys in a keytab.

    Raises:
        EOFError: The content ends in the middle of an entry.
        ValueError: The content is not a keytab.
    """
    if not content:
        return ()
    if content[:1] != b"\x05":
        raise ValueError("is not a keytab")
    if len(content) < 2:
        raise EOFError
    if content[1] not in (1, 2):
        raise ValueError("is not a keytab")
    # Version 1 uses the byte order of the machine that wrote it.
    order: Literal["big", "little"] = "big" if content[1] == 2 else sys.byteorder
    octets = Octets(content, order)
    octets.skip(2)
    keys = []
    while octets.left:
        start = octets.at
        size = octets.integer(4, signed=True)
        if size == 0:
            break
        if abs(size) > ENTRY_LIMIT_BYTES:
            raise ValueError("has an entry of an impossible size")
        if size < 0:  # a hole left by a removed key
            octets.skip(min(-size, octets.left))
            continue
        record = Octets(octets.take(size), order)
        try:
            keys.append(_read_key(record, content[1], start, octets.at))
        except EOFError:
            raise ValueError("has an entry that contradicts its own size") from None
    return tuple(keys)


def _read_key(record: Octets, version: int, start: int, end: int) -> Key:
    count = record.integer(2) - (1 if version == 1 else 0)
    realm = record.counted_text(2)
    components = tuple(record.counted_text(2) for _ in range(count))
    if version == 2:
        record.skip(4)  # the name type
    added_at = record.integer(4)
    kvno = record.integer(1)
    enctype = record.integer(2)
    trace = hashlib.blake2b(record.take(record.integer(2)), digest_size=2).hexdigest()
    if record.left >= 4:
        kvno = record.integer(4) or kvno
    if not components:
        raise ValueError("has an entry without a name")
    principal = Principal(components, realm)
    if not principal.is_text:  # wrong lengths can make bytes of the key part of the name
        raise ValueError("has an entry whose name is not text")
    return Key(principal, kvno, enctype, added_at, trace, start, end)


def _explain_garbage(path: str, content: bytes) -> KeytabError:
    if _BASE64.fullmatch(content):
        return KeytabError(
            "keytab_garbage",
            f"{path} is base64 text, not a keytab",
            "It was encoded twice: put the file itself into the Secret (kubectl create secret "
            "generic --from-file), or its base64 under data:, not under stringData:.",
        )
    return KeytabError(
        "keytab_garbage",
        f"{path} is not a keytab ({len(content)} bytes)",
        "Create the Secret from the keytab file itself, in binary.",
    )
