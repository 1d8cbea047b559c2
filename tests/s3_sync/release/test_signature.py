"""Keys and signatures: accepted and refused ones, and the errors."""

import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from s3_sync.release.signature import read_keys, read_signer
from tests.support.raising import raised
from tests.support.s3_sync.signing import Key, write_keys

KEY = Key()
OTHER = Key()
MESSAGE = b"a message\n"
# The beginning of an RSA key as `openssl pkey -pubout` prints it.
RSA = "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A\n-----END PUBLIC KEY-----\n"
ENCRYPTED = Ed25519PrivateKey.generate().private_bytes(
    Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password")
)
CURVE = ec.generate_private_key(ec.SECP256R1()).private_bytes(
    Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
)
NO_PUBLIC_KEYS = {
    "nowhere": (None, "cannot be read"),
    "empty": (b"", "something other than Ed25519 public keys"),
    "ssh": (b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA me", "something other than Ed25519"),
    "both": (KEY.public_pem + KEY.private_pem, "contains a private key in"),
    "rsa": (RSA.encode(), "something other than Ed25519"),
    "typo": (KEY.public_pem.replace(b"MCow", b"MC!w", 1), "something other than"),
}
NO_PRIVATE_KEYS = {
    "nowhere": (None, "cannot be read: No such file"),
    "public": (KEY.public_pem, "is not an Ed25519 private key in PEM"),
    "encrypted": (ENCRYPTED, "is not an Ed25519 private key in PEM without a password"),
    "other": (CURVE, "is not an Ed25519 private key in PEM"),
    "half": (KEY.private_pem[:60], "is not an Ed25519 private key in PEM"),
}


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_openssl_agrees_on_keys_ids_and_signatures(tmp_path: Path) -> None:
    """
    Compare with a second implementation: the how-to's commands and the documented
    format.
    """
    private = tmp_path / "key.pem"
    public = tmp_path / "pub.pem"

    def openssl(words: str) -> bytes:
        return subprocess.run(
            ["openssl", *words.split()], cwd=tmp_path, check=True, capture_output=True
        ).stdout

    openssl("genpkey -algorithm ed25519 -out key.pem")
    openssl("pkey -in key.pem -pubout -out pub.pem")
    signer = read_signer(str(private))
    (tmp_path / "message").write_bytes(b"s3-sync pointer\0bucket\0dags/\0" + MESSAGE)
    openssl("pkeyutl -sign -rawin -inkey key.pem -in message -out signature")

    assert signer.keys == read_keys(str(public))
    assert openssl("base64 -A -in signature") in signer.sign(MESSAGE, "bucket", "dags/")
    (tmp_path / "raw").write_bytes(
        openssl("pkey -in key.pem -pubout -outform DER")[-32:]
    )
    assert openssl("dgst -sha256 -r raw").decode().startswith(signer.key_id)


# --- trusted keys


def test_reads_several_keys_from_a_folder_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "both.pem").write_bytes(
        KEY.public_pem + b"\n# the next one\n" + OTHER.public_pem
    )

    both = {KEY.key_id, OTHER.key_id}
    assert both == set(read_keys(str(write_keys(tmp_path / "keys", KEY, OTHER))).by_id)
    assert both == set(read_keys(str(tmp_path / "both.pem")).by_id)


@pytest.mark.parametrize("name", NO_PUBLIC_KEYS)
def test_refuses_invalid_public_keys_and_shows_no_secret(
    tmp_path: Path, name: str
) -> None:
    content, said = NO_PUBLIC_KEYS[name]
    path = tmp_path / "keys" / "a.pem"
    path.parent.mkdir()
    if content is not None:
        path.write_bytes(content)
    else:
        path.symlink_to("nowhere")

    message = str(raised(ValueError, read_keys, str(path.parent)))

    assert said in message
    for secret in KEY.private_pem.splitlines()[1:-1]:
        assert secret.decode() not in message


# --- private keys


@pytest.mark.parametrize("name", NO_PRIVATE_KEYS)
def test_refuses_invalid_private_keys(tmp_path: Path, name: str) -> None:
    content, said = NO_PRIVATE_KEYS[name]
    path = tmp_path / "key.pem"
    if content is not None:
        path.write_bytes(content)

    assert said in str(raised(ValueError, read_signer, str(path)))
