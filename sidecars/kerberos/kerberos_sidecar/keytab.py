"""
Finds a keytab and reads its principals, key versions and encryption types.

libkrb5 reports "No credentials cache found" for seven different faults of a keytab (MIT
1.20.1, 2026-11), so the keytab is checked before libkrb5 reads it. The format is MIT's,
version 2: https://web.mit.edu/kerberos/krb5-latest/doc/formats/keytab_file_format.html
"""

import errno
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from kerberos_sidecar.formats import Octets, Principal
from kerberos_sidecar.reasons import failure
from kerberos_sidecar.settings import Entry, Settings
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.volume.files import read_file

SIZE_LIMIT_BYTES = 1 << 20
# A real entry has a few hundred bytes. A much larger length means that the file is not
# a keytab.
ENTRY_LIMIT_BYTES = 1 << 16

# https://www.iana.org/assignments/kerberos-parameters
ENCTYPES = {
    17: "aes128-cts-hmac-sha1-96",
    18: "aes256-cts-hmac-sha1-96",
    19: "aes128-cts-hmac-sha256-128",
    20: "aes256-cts-hmac-sha384-192",
    23: "rc4-hmac",
}

_MAGIC = b"\x05\x02"

# Of a path where nothing is, or what cannot be a keytab: a folder, a pipe, a socket, a
# file that is too large.
_ABSENT = (
    errno.ENOENT,
    errno.ENOTDIR,
    errno.ELOOP,
    errno.EINVAL,
    errno.ENXIO,
    errno.EFBIG,
)


@dataclass(frozen=True, slots=True)
class Key:
    """
    The metadata of one key in a keytab.

    Args:
        trace: A few bits of a digest of the key, to detect that the key has changed.
    """

    kvno: int
    enctype: int
    trace: str


Keys = Mapping[Principal, Sequence[Key]]
"""The keys of each principal in a keytab, in the order of the file."""


@dataclass(frozen=True, slots=True)
class Keytab:
    """
    The keys of one principal in a keytab file.

    Args:
        kvno: The newest version of the keys.
        held: The encryption types of the newest keys.
        stamp: Changes with the keys, but reveals none; as short for thousands of keys.
    """

    path: str
    principal: Principal
    kvno: int
    held: str
    stamp: str

    def __str__(self) -> str:
        return self.stamp


def select(path: str, keys: Keys, wanted: Principal | None) -> Keytab:
    """
    Return the keys of the wanted principal, or of the first one for ``None``.

    Raises:
        SidecarError: The keytab has no key for that principal, or none in that realm.
    """
    principals = list(keys)
    for found in principals:
        if wanted is None or found.is_named(wanted):
            return _summary(path, found, keys[found])
    shown = ", ".join(map(str, principals[:5]))
    reason = "principal_absent"
    absent = str(wanted)
    realm = wanted.realm if wanted else ""
    if realm and realm not in {found.realm for found in principals}:
        reason = "realm_absent"
        absent = f"the realm {realm}"
    raise failure(
        reason,
        f"{path} has no key for {absent}, but {len(principals)} principals: {shown}",
    )


def _summary(path: str, principal: Principal, keys: Sequence[Key]) -> Keytab:
    newest = max(key.kvno for key in keys)
    types = dict.fromkeys(key.enctype for key in keys if key.kvno == newest)
    names = {f"{key.kvno}/{key.enctype}/{key.trace}" for key in keys}
    text = " ".join([str(principal), *sorted(names)])
    return Keytab(
        path=path,
        principal=principal,
        kvno=newest,
        held=", ".join(ENCTYPES.get(one, f"enctype {one}") for one in types),
        stamp=hashlib.blake2b(text.encode(), digest_size=16).hexdigest(),
    )


def find_keytab(entry: Entry, settings: Settings) -> str:
    """
    Return the path of an entry's keytab: the only one in the folder if none is named.

    The first bytes exclude krb5.conf, and our ccaches, which change often. If no file
    is a keytab, the error is about the only file, if there is one.

    Raises:
        SidecarError: The folder contains no keytab, or several.
    """
    if entry.keytab is not None:
        return entry.keytab
    folder = settings.keytab_dir
    ccaches = {one.ccache for one in settings.entries}
    try:
        files = [
            one.path
            for one in sorted(os.scandir(folder), key=lambda one: one.name)
            if one.name[0] != "." and one.is_file() and one.path not in ccaches
        ]
    except OSError as error:
        raise _explain_unread(folder, error) from None
    keytabs = list(filter(_begins_like_a_keytab, files))
    match keytabs or files:
        case [path]:
            return path
    if not keytabs:
        raise failure("keytab_missing", f"{folder} contains no keytab")
    shown = ", ".join(map(os.path.basename, keytabs[:5]))
    raise failure(
        "keytab_ambiguous", f"{folder} contains {len(keytabs)} keytabs: {shown}"
    )


def _begins_like_a_keytab(path: str) -> bool:
    """
    Check the first bytes; a file that cannot be read counts as a keytab, so that it is
    reported.
    """
    try:
        with open(path, "rb") as file:
            return file.read(2) == _MAGIC
    except OSError as error:
        return not isinstance(error, FileNotFoundError)


def read_keytab(path: str) -> Keys:
    """
    Return the keys in a file; follow symlinks, because a Secret's files are symlinks.

    Raises:
        SidecarError: The file is missing, unreadable, empty, truncated, or not a
            keytab.
    """
    try:
        content = read_file(path, SIZE_LIMIT_BYTES, follow=True)
    except OSError as error:
        raise _explain_unread(path, error) from None
    try:
        keys = parse_keytab(content)
    except EOFError:
        raise failure(
            "keytab_truncated",
            f"{path} ends in the middle of an entry, after {len(content)} bytes",
        ) from None
    except ValueError as error:
        raise failure("keytab_garbage", f"{path} {error}") from None
    if not keys:
        raise failure("keytab_empty", f"{path} contains no key")
    return keys


@lru_cache(maxsize=8)
def parse_keytab(content: bytes) -> Keys:
    """
    Return the metadata of the keys in a keytab; remembered, because a hundred
    principals look into the same one every five seconds.

    Raises:
        EOFError: The content ends in the middle of an entry.
        ValueError: The content is not a keytab.
    """
    if not content:
        return {}
    if content[:2] != _MAGIC:  # nobody has written version 1 since the nineties
        raise ValueError("is not a keytab")
    octets = Octets(content)
    octets.take(2)
    keys: dict[Principal, list[Key]] = {}
    while octets.left:
        size = octets.integer(4, signed=True)
        if size == 0:
            break
        if abs(size) > ENTRY_LIMIT_BYTES:
            raise ValueError("has an entry of an impossible size")
        if size < 0:  # a hole left by a removed key
            octets.take(min(-size, octets.left))
            continue
        record = Octets(octets.take(size))
        try:
            principal, key = _read_key(record)
        except EOFError:
            raise ValueError("has an entry that contradicts its own size") from None
        keys.setdefault(principal, []).append(key)
    return keys


def _read_key(record: Octets) -> tuple[Principal, Key]:
    count = record.integer(2)
    realm = record.counted_text(2)
    components = tuple(record.counted_text(2) for _ in range(count))
    record.take(8)  # the name type, and when it was added
    kvno = record.integer(1)
    enctype = record.integer(2)
    trace = hashlib.blake2b(record.take(record.integer(2)), digest_size=2).hexdigest()
    if record.left >= 4:
        kvno = record.integer(4) or kvno
    if not components:
        raise ValueError("has an entry without a name")
    principal = Principal(components, realm)
    # wrong lengths can make bytes of the key part of the name
    if not principal.is_text:
        raise ValueError("has an entry whose name is not text")
    return principal, Key(kvno, enctype, trace)


def _explain_unread(path: str, error: OSError) -> SidecarError:
    if error.errno in _ABSENT:
        return failure("keytab_missing", f"no keytab is at {path}: {error.strerror}")
    return failure(
        "keytab_unreadable",
        f"{path} cannot be read as uid {os.getuid()} with group {os.getgid()}: "
        f"{error.strerror}",
    )
