"""
Keys for tests: created in memory, and written as files in openssl's format.
"""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from s3_sync.release.signature import Signer


class Key:
    """
    A key pair.

    Attributes:
        raw: The 32 bytes of the public half.
        signer: Signs with this key.
        private_pem: The output of `openssl genpkey -algorithm ed25519`.
        public_pem: The output of `openssl pkey -pubout`.
    """

    def __init__(self) -> None:
        key = Ed25519PrivateKey.generate()
        self.raw = key.public_key().public_bytes_raw()
        self.signer = Signer(key)
        self.private_pem = key.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
        self.public_pem = key.public_key().public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )

    @property
    def key_id(self) -> str:
        return self.signer.key_id

    def write_private(self, path: Path) -> Path:
        """
        Write the private key for a publisher.
        """
        path.write_bytes(self.private_pem)
        return path


def write_keys(folder: Path, *keys: Key) -> Path:
    """
    Make a folder contain exactly these public keys, like a ConfigMap volume: as links
    into `..data`, which is itself a link that is swapped.
    """
    folder.mkdir(exist_ok=True)
    data = folder / f"..{len(list(folder.glob('..[0-9]*')))}"
    data.mkdir()
    for key in keys:
        (data / f"{key.key_id}.pem").write_bytes(key.public_pem)
    turned = folder / "..new"
    turned.symlink_to(data.name)
    turned.rename(folder / "..data")
    names = {f"{key.key_id}.pem" for key in keys}
    for path in folder.glob("*.pem"):
        if path.name not in names:
            path.unlink()
    for name in names:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    return folder
