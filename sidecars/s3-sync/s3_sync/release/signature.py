"""
Ed25519 signatures of pointers: private keys that sign, public keys that are trusted.

The signed bytes: docs/reference/release-format.md. Imported only where there are keys:
a daemon without trusted keys never loads `cryptography`, which saves 8 MiB.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from typing import NamedTuple

with suppress(ModuleNotFoundError):  # of the extra `sign`: it has compiled parts
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )
    from cryptography.hazmat.primitives.serialization import (
        load_pem_private_key,
        load_pem_public_key,
    )

from sidecar_runtime.errors import SidecarError

ALGORITHM = "ed25519"
KEY_ID_DIGITS = 16
FILE_LIMIT_BYTES = 64 << 10

_TEXT = re.compile(rf"{ALGORITHM}:([0-9a-f]{{16}}):([A-Za-z0-9+/=]{{1,7900}})")
_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)


def key_id_of(raw: bytes) -> str:
    """
    Return the id of a public key.
    """
    return hashlib.sha256(raw).hexdigest()[:KEY_ID_DIGITS]


def _message(body: bytes, bucket: str, prefix: str) -> bytes:
    place = [part.encode(errors="surrogateescape") for part in (bucket, prefix)]
    return b"\0".join([b"s3-sync pointer", *place, body])


class Keys(NamedTuple):
    """
    Trusted public keys, by id.
    """

    by_id: Mapping[str, bytes]

    def judge(self, body: bytes, bucket: str, prefix: str, signature: str) -> str:
        """
        Return the id of the key that signed a pointer for this place.

        Raises:
            ValueError: It is not trusted; the text says why.
        """
        if not signature:
            raise ValueError("it is not signed")
        found = _TEXT.fullmatch(signature)
        if found is None:
            raise ValueError(
                f"its signature is malformed, or not of the kind {ALGORITHM}"
            )
        key_id, text = found.groups()
        if key_id not in self.by_id:
            raise ValueError(f"it is signed by {key_id}, which is not trusted")
        try:
            raw = base64.b64decode(text, validate=True)
            Ed25519PublicKey.from_public_bytes(self.by_id[key_id]).verify(
                raw, _message(body, bucket, prefix)
            )
        except (ValueError, InvalidSignature):
            raise ValueError(
                f"{key_id} signed other content, or for another place"
            ) from None
        return key_id


def read_keys(path: str) -> Keys:
    """
    Read the public keys in a file, or in all files of a folder that are not hidden.

    Raises:
        ValueError: There is no key, or something other than public keys; the text names
            the file.
    """
    files = [path]
    try:
        if os.path.isdir(path):
            # A mounted ConfigMap has hidden entries, such as the link `..data`: they
            # are no keys.
            files = [one.path for one in os.scandir(path) if one.name[0] != "."]
        by_id = {key_id_of(raw): raw for file in files for raw in _read_file(file)}
    except OSError as error:
        raise ValueError(
            f"cannot be read: {error.filename}: {error.strerror}"
        ) from None
    if not by_id:
        raise ValueError("contains no public keys")
    return Keys(by_id)


def _read(path: str) -> bytes:
    if find_spec("cryptography") is None:
        raise SidecarError(
            "package_missing",
            "keys need the package cryptography",
            "pip install 's3-sync[sign]'",
        )
    with open(path, "rb") as file:
        return file.read(FILE_LIMIT_BYTES)


def _read_file(path: str) -> list[bytes]:
    data = _read(path)
    if b"PRIVATE KEY-----" in data:
        raise ValueError(
            f"contains a private key in {path}: anyone who can read it can sign. Replace that key "
            "and put its public half there (openssl pkey -pubout)"
        )
    try:
        keys = [load_pem_public_key(block[0]) for block in _PEM.finditer(data)]
    except (ValueError, UnsupportedAlgorithm):
        keys = []
    found = [
        key.public_bytes_raw() for key in keys if isinstance(key, Ed25519PublicKey)
    ]
    if not found or len(found) < len(keys):
        raise ValueError(
            f"contains something other than Ed25519 public keys in PEM in {path}"
        )
    return found


class Signer:
    """
    A private key that signs.
    """

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        raw = key.public_key().public_bytes_raw()
        self.key_id = key_id_of(raw)
        # The trusted keys that contain only this key.
        self.keys = Keys({self.key_id: raw})

    def sign(self, body: bytes, bucket: str, prefix: str) -> bytes:
        """
        Return a pointer with its signature.
        """
        text = base64.b64encode(self._key.sign(_message(body, bucket, prefix))).decode()
        return body + f'{{"signature": "{ALGORITHM}:{self.key_id}:{text}"}}\n'.encode()


def read_signer(path: str) -> Signer:
    """
    Read a private key: Ed25519, PKCS #8 in PEM, not encrypted.

    Raises:
        ValueError: It is anything else; the text reveals nothing of its content.
    """
    try:
        data = _read(path)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    try:
        key = load_pem_private_key(data, None)
    except (
        TypeError,
        ValueError,
        UnsupportedAlgorithm,
    ):  # TypeError: it has a password
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(
            "is not an Ed25519 private key in PEM without a password (openssl genpkey -algorithm "
            "ed25519)"
        )
    return Signer(key)
