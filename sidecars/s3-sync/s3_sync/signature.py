"""
Signatures by Ed25519: private keys that sign, public keys that are trusted.

What is signed and how: docs/reference/release-format.md. `cryptography` is imported where a
signature is made or verified, and nowhere else: a daemon without trusted keys never has it.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ALGORITHM = "ed25519"
KEY_ID_DIGITS = 16
# Of a file of keys, and how many there are: each is tried by its id alone, so this is for slips.
FILE_LIMIT_BYTES = 64 << 10
KEYS_LIMIT = 100

_TEXT = re.compile(r"([a-z0-9-]{1,30}):([0-9a-f]{16}):([A-Za-z0-9+/=]{1,7900})")
_LINE = re.compile(rb'\{"signature": "([!#-\[\]-~]{1,8000})"\}\n')
_PEM = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----(.*?)-----END \1-----", re.DOTALL)
# RFC 8410, section 4: what stands before the 32 bytes of a public key, in DER.
_DER = bytes.fromhex("302a300506032b6570032100")

# The points of small order, as libsodium lists them, without the sign in the last bit: of such a
# "key" everyone can sign some messages, zeros for a placeholder among them.
_WEAK = {
    bytes(32),
    bytes.fromhex(f"01{'00' * 31}"),
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
    *(bytes.fromhex(f"{first}{'ff' * 30}7f") for first in ("ec", "ed", "ee")),
}

# What a file looks like to whoever asks whether it has changed.
Mark = tuple[tuple[str, int, int, int], ...]


class Untrusted(Exception):
    """
    It is not signed by a key that is trusted; the text says why.
    """


def key_id_of(raw: bytes) -> str:
    """
    Return what a public key is called.
    """
    return hashlib.sha256(raw).hexdigest()[:KEY_ID_DIGITS]


def signature_line(signature: str) -> bytes:
    """
    Return the line that follows what is signed.
    """
    return f'{{"signature": "{signature}"}}\n'.encode()


def split_line(data: bytes, at: int) -> tuple[str, int]:
    """
    Return the signature whose line begins there, and where the line ends; "" where there is none.
    """
    found = _LINE.match(data, at)
    return (found[1].decode(), found.end()) if found else ("", at)


def signer_named(signature: str) -> str:
    """
    Return the key that a signature names, unverified; "" where it names none.
    """
    found = _TEXT.fullmatch(signature)
    return found[2] if found else ""


class Keys(NamedTuple):
    """
    Public keys that are trusted, by id.
    """

    by_id: Mapping[str, bytes]

    def signer_of(self, message: bytes, signature: str) -> str:
        """
        Return the id of the key that has signed a message.

        Raises:
            Untrusted: None of these has.
        """
        if not signature:
            raise Untrusted("it is not signed")
        found = _TEXT.fullmatch(signature)
        if found is None:
            raise Untrusted("its signature is malformed")
        algorithm, key_id, text = found.groups()
        if algorithm != ALGORITHM:
            raise Untrusted(
                f"it is signed by {key_id} with {algorithm}, which this s3-sync does not know"
            )
        if key_id not in self.by_id:
            raise Untrusted(f"it is signed by {key_id}, which is not trusted")
        # Not at the top: it is 8 MiB of a daemon that has no keys.
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
            Ed25519PublicKey,
        )

        try:
            raw = base64.b64decode(text, validate=True)
            Ed25519PublicKey.from_public_bytes(self.by_id[key_id]).verify(raw, message)
        except (ValueError, InvalidSignature):
            raise Untrusted(f"{key_id} signed something else, or for another place") from None
        return key_id


def read_keys(path: str) -> Keys:
    """
    Read the public keys of a file, or of all files of a folder that are not hidden.

    Raises:
        ValueError: There is none, or something else; the text names the file.
    """
    by_id: dict[str, bytes] = {}
    try:
        for file in _files_of(path):
            by_id |= {key_id_of(raw): raw for raw in _read_file(file)}
    except OSError as error:
        raise ValueError(f"cannot be read: {error.filename}: {error.strerror}") from None
    if not by_id:
        raise ValueError("has no public key, so nothing would be trusted")
    if len(by_id) > KEYS_LIMIT:
        raise ValueError(f"has {len(by_id)} keys; the limit is {KEYS_LIMIT}")
    return Keys(by_id)


def _files_of(path: str) -> list[str]:
    if not os.path.isdir(path):
        return [path]
    # A ConfigMap is mounted as links into `..data`, a link itself: neither is a key.
    return [os.path.join(path, name) for name in sorted(os.listdir(path)) if name[0] != "."]


def _read_file(path: str) -> list[bytes]:
    with open(path, "rb") as file:
        data = file.read(FILE_LIMIT_BYTES + 1)
    text = data.decode("ascii", "replace")
    blocks = [(found[1], found[2]) for found in _PEM.finditer(text)]
    if len(data) > FILE_LIMIT_BYTES or not blocks:
        raise ValueError(f"has no public key in PEM in {path}")
    return [_read_block(path, label, body) for label, body in blocks]


def _read_block(path: str, label: str, body: str) -> bytes:
    if "PRIVATE" in label:
        raise ValueError(
            f"has a private key in {path}: whoever reads it can sign. Replace that key, and put "
            "its public half there (openssl pkey -pubout)"
        )
    try:
        der = base64.b64decode("".join(body.split()), validate=True)
    except ValueError:
        der = b""
    if label != "PUBLIC KEY" or len(der) != len(_DER) + 32 or not der.startswith(_DER):
        raise ValueError(f"has something other than an Ed25519 public key in {path}")
    raw = der[len(_DER) :]
    if raw[:-1] + bytes([raw[-1] & 0x7F]) in _WEAK:
        raise ValueError(f"has a key in {path} that anyone can sign with")
    return raw


@dataclass(slots=True)
class KeyFolder:
    """
    The trusted keys of a path, read again when they change; belongs to one thread.
    """

    path: str
    _keys: Keys | None = None
    _mark: Mark = field(default=())

    @property
    def has_changed(self) -> bool:
        """
        Whether the files are others than those that were read last.
        """
        return self._look() != self._mark

    def read(self) -> tuple[Keys, bool]:
        """
        Return the keys, and whether they are others than before.

        Raises:
            ValueError: As :func:`read_keys`.
        """
        mark = self._look()  # first: what changes meanwhile is seen the next time
        if self._keys is not None and mark == self._mark:
            return self._keys, False
        self._keys, self._mark = None, mark
        self._keys = read_keys(self.path)
        return self._keys, True

    def _look(self) -> Mark:
        found = []
        try:
            for file in _files_of(self.path):
                facts = os.stat(file)
                found.append((file, facts.st_ino, facts.st_size, facts.st_mtime_ns))
        except OSError:
            return (("", 0, 0, 0),)  # something else than any that could be read
        return tuple(found)


class Signer:
    """
    A private key that signs.
    """

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self._raw = key.public_key().public_bytes_raw()
        self.key_id = key_id_of(self._raw)

    @property
    def keys(self) -> Keys:
        """
        What trusts this key alone.
        """
        return Keys({self.key_id: self._raw})

    def sign(self, message: bytes) -> str:
        return f"{ALGORITHM}:{self.key_id}:{base64.b64encode(self._key.sign(message)).decode()}"


class Trust(NamedTuple):
    """
    What a publisher trusts, and what it signs with; without keys everything is trusted.
    """

    keys: Keys | None = None
    signer: Signer | None = None


# Trusts everything and signs nothing.
NO_KEYS = Trust()


def read_signer(path: str) -> Signer:
    """
    Read a private key: Ed25519, PKCS #8 in PEM, not encrypted.

    Raises:
        ValueError: It is anything else; the text says nothing of its content.
    """
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
        Ed25519PrivateKey,
    )
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    try:
        with open(path, "rb") as file:
            data = file.read(FILE_LIMIT_BYTES)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    try:
        key = load_pem_private_key(data, None)
    except TypeError:
        raise ValueError("is encrypted; s3-sync takes a key without a password") from None
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(
            "is not an Ed25519 private key in PEM (openssl genpkey -algorithm ed25519)"
        )
    return Signer(key)
