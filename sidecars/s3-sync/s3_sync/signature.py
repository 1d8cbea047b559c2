"""
Ed25519 signatures of pointers: private keys that sign, public keys that are trusted.

The signed bytes: docs/reference/release-format.md. `cryptography` is imported only when a signature
is made or verified: a daemon without trusted keys never loads it, which saves 8 MiB.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ALGORITHM = "ed25519"
KEY_ID_DIGITS = 16
# Limits of a key file and of the number of keys, to catch mistakes: keys are looked up by id.
FILE_LIMIT_BYTES = 64 << 10
KEYS_LIMIT = 100

_TEXT = re.compile(r"([a-z0-9-]{1,30}):([0-9a-f]{16}):([A-Za-z0-9+/=]{1,7900})")
_LINE = re.compile(rb'\n\{"signature": "([!#-\[\]-~]{1,8000})"\}\n\Z')
_PEM = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----(.*?)-----END \1-----", re.DOTALL)
# RFC 8410, section 4: the DER prefix of the 32 bytes of a public key.
_DER = bytes.fromhex("302a300506032b6570032100")

# The points of small order, as libsodium lists them, without the sign in the last bit: anyone can
# sign some messages for such a "key". All zeros, a likely placeholder, is one of them.
_WEAK = {
    bytes(32),
    bytes.fromhex(f"01{'00' * 31}"),
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
    *(bytes.fromhex(f"{first}{'ff' * 30}7f") for first in ("ec", "ed", "ee")),
}


class Untrusted(Exception):
    """
    It is not signed with a trusted key; the text says why.
    """


def key_id_of(raw: bytes) -> str:
    """
    Return the id of a public key.
    """
    return hashlib.sha256(raw).hexdigest()[:KEY_ID_DIGITS]


def split_signature(data: bytes) -> tuple[bytes, str]:
    """
    Return the signed part of a pointer, and the signature in its last line; "" if it has none.
    """
    found = _LINE.search(data)
    return (data[: found.start() + 1], found[1].decode()) if found else (data, "")


def _message(body: bytes, bucket: str, prefix: str) -> bytes:
    place = [part.encode(errors="surrogateescape") for part in (bucket, prefix)]
    return b"\0".join([b"s3-sync pointer", *place, body])


class Keys(NamedTuple):
    """
    Trusted public keys, by id.
    """

    by_id: Mapping[str, bytes]

    def signer_of(self, body: bytes, bucket: str, prefix: str, signature: str) -> str:
        """
        Return the id of the key that signed a pointer for this place.

        Raises:
            Untrusted: The signature is missing, invalid, or not from one of these keys.
        """
        if not signature:
            raise Untrusted("it is not signed")
        found = _TEXT.fullmatch(signature)
        if found is None:
            raise Untrusted("its signature is malformed")
        algorithm, key_id, text = found.groups()
        if algorithm != ALGORITHM:
            raise Untrusted(f"it is signed with {algorithm}, which this s3-sync does not support")
        if key_id not in self.by_id:
            raise Untrusted(f"it is signed by {key_id}, which is not trusted")
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
            Ed25519PublicKey,
        )

        try:
            raw = base64.b64decode(text, validate=True)
            message = _message(body, bucket, prefix)
            Ed25519PublicKey.from_public_bytes(self.by_id[key_id]).verify(raw, message)
        except (ValueError, InvalidSignature):
            raise Untrusted(f"{key_id} signed other content, or for another place") from None
        return key_id


def read_keys(path: str) -> Keys:
    """
    Read the public keys in a file, or in all files of a folder that are not hidden.

    Raises:
        ValueError: There is no key, or something other than public keys; the text names the file.
    """
    by_id: dict[str, bytes] = {}
    try:
        for file in _files_of(path):
            by_id |= {key_id_of(raw): raw for raw in _read_file(file)}
    except OSError as error:
        raise ValueError(f"cannot be read: {error.filename}: {error.strerror}") from None
    if not by_id:
        raise ValueError("contains no public key, so every release would be refused")
    if len(by_id) > KEYS_LIMIT:
        raise ValueError(f"contains {len(by_id)} keys; the limit is {KEYS_LIMIT}")
    return Keys(by_id)


def _files_of(path: str) -> list[str]:
    if not os.path.isdir(path):
        return [path]
    # A mounted ConfigMap has hidden entries, such as the link `..data`: they are not keys.
    return [os.path.join(path, name) for name in sorted(os.listdir(path)) if name[0] != "."]


def _read_file(path: str) -> list[bytes]:
    with open(path, "rb") as file:
        data = file.read(FILE_LIMIT_BYTES + 1)
    text = data.decode("ascii", "replace")
    blocks = [(found[1], found[2]) for found in _PEM.finditer(text)]
    if len(data) > FILE_LIMIT_BYTES or not blocks:
        raise ValueError(f"has no PEM public key in {path}")
    return [_read_block(path, label, body) for label, body in blocks]


def _read_block(path: str, label: str, body: str) -> bytes:
    if "PRIVATE" in label:
        raise ValueError(
            f"contains a private key in {path}: anyone who can read it can sign. Replace that key "
            "and put its public half there (openssl pkey -pubout)"
        )
    try:
        der = base64.b64decode("".join(body.split()), validate=True)
    except ValueError:
        der = b""
    if label != "PUBLIC KEY" or len(der) != len(_DER) + 32 or not der.startswith(_DER):
        raise ValueError(f"contains something other than an Ed25519 public key in {path}")
    raw = der[len(_DER) :]
    if raw[:-1] + bytes([raw[-1] & 0x7F]) in _WEAK:
        raise ValueError(f"contains a weak key in {path}, with which anyone can sign")
    return raw


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
        The trusted keys that contain only this key.
        """
        return Keys({self.key_id: self._raw})

    def sign(self, body: bytes, bucket: str, prefix: str) -> bytes:
        """
        Return a pointer with its signature.
        """
        raw = self._key.sign(_message(body, bucket, prefix))
        text = f"{ALGORITHM}:{self.key_id}:{base64.b64encode(raw).decode()}"
        return body + f'{{"signature": "{text}"}}\n'.encode()


def read_signer(path: str) -> Signer:
    """
    Read a private key: Ed25519, PKCS #8 in PEM, not encrypted.

    Raises:
        ValueError: It is anything else; the text reveals nothing of its content.
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
        raise ValueError("is encrypted; s3-sync needs a key without a password") from None
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(
            "is not an Ed25519 private key in PEM (openssl genpkey -algorithm ed25519)"
        )
    return Signer(key)
