"""
Reads a keytab: which principals, versions and types of key it has; of the keys a trace.

libkrb5 says "No credentials cache found" for seven different faults of a keytab (MIT 1.20.1,
2026-11), so it is looked at before libkrb5 gets it. The format is MIT's, version 2 and 1:
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
from kerberos_sidecar.formats.regular import read_regular
from sidecar_runtime.errors import SidecarError

SIZE_LIMIT_BYTES = 1 << 20
# A real one has some hundred bytes; what is far above is not a length, and the file not a keytab.
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
    The keytab cannot be used; says why, and never what is in it.
    """


@dataclass(frozen=True, slots=True)
class Key:
    """
    What a keytab says of one key.

    Args:
        added_at: Unix time; ktpass of Active Directory always writes 0.
        trace: 16 bits of a digest of the key: they tell that it is another, and no more.
        start, end: Where its record lies in the file, in bytes; the key itself is among them.
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
    A keytab that was read: never empty.
    """

    path: str
    keys: tuple[Key, ...]

    def select(self, wanted: Principal | None) -> Principal:
        """
        Return the principal that is wanted, with its realm; ``None`` takes the first.

        Raises:
            KeytabError: It has no key of that principal, or of none in that realm.
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
                f"{self.path} has no key of the realm {wanted.realm}, only of {shown}",
                "Correct the realm (in capitals, as a rule), or mount the keytab of that realm.",
            )
        raise KeytabError(
            "principal_absent",
            f"{self.path} has no key of {wanted}, only of {shown}",
            "Correct KERBEROS_PRINCIPAL, or export the keytab of that principal.",
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
        KeytabError: It is missing, unreadable, empty, truncated, or no keytab.
    """
    content = read_content(path)
    try:
        keys = parse_keytab(content)
    except EOFError:
        raise KeytabError(
            "keytab_truncated",
            f"{path} ends in the middle of an entry, after {len(content)} bytes",
            "Copy it again, in binary; the Secret must be made from the whole file.",
        ) from None
    except ValueError:
        raise _explain_garbage(path, content) from None
    if not keys:
        raise KeytabError(
            "keytab_empty",
            f"{path} holds no key ({len(content)} bytes)",
            "Export it again, by ktadd, ktpass or msktutil.",
        )
    return Keytab(path, keys)


def read_content(path: str) -> bytes:
    """
    Return the bytes of a keytab file; symlinks are followed, as a Secret's files are such.

    Raises:
        KeytabError: It is missing, unreadable, or no regular file.
    """
    try:
        return read_regular(path, SIZE_LIMIT_BYTES, follow=True)
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise KeytabError(
                "keytab_garbage",
                f"{path} is not a keytab: {error.strerror}",
                "Make the Secret from the keytab file itself, in binary.",
            ) from None
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise KeytabError(
                "keytab_missing",
                f"there is no keytab at {path}",
                "Mount the Secret with the keytab here, as a folder; check KERBEROS_KEYTAB.",
            ) from None
        raise KeytabError(
            "keytab_unreadable",
            f"{path} cannot be read as uid {os.getuid()} with group {os.getgid()}: "
            f"{error.strerror}",
            "Let the pod's fsGroup, or defaultMode: 0440 on the Secret, make it readable.",
        ) from None


def parse_keytab(content: bytes) -> tuple[Key, ...]:
    """
    Return what a keytab says of its keys.

    Raises:
        EOFError: It ends in the middle of an entry.
        ValueError: It is not a keytab.
    """
    if not content:
        return ()
    if content[:1] != b"\x05":
        raise ValueError("is not a keytab")
    if len(content) < 2:
        raise EOFError
    if content[1] not in (1, 2):
        raise ValueError("is not a keytab")
    # Version 1 is in the byte order of whoever wrote it.
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
        if size < 0:  # a hole: a key that was removed
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
        record.skip(4)  # the type of the name
    added_at = record.integer(4)
    kvno = record.integer(1)
    enctype = record.integer(2)
    trace = hashlib.blake2b(record.take(record.integer(2)), digest_size=2).hexdigest()
    if record.left >= 4:
        kvno = record.integer(4) or kvno
    if not components:
        raise ValueError("has an entry without a name")
    principal = Principal(components, realm)
    if not principal.is_text:  # lengths that are wrong put bytes of the key into it
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
        "Make the Secret from the keytab file itself, in binary.",
    )
