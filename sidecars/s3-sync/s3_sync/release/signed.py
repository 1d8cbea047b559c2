"""
The signatures of a release: docs/reference/release-format.md. Pure.

The signature of a manifest proves that this publisher vouches for the content and the first line.
That of a pointer proves that this publisher made it current, in this place, after its history.
"""

from __future__ import annotations

from s3_sync.digest import sha256_of
from s3_sync.release.manifest import split_manifest
from s3_sync.release.pointer import split_pointer
from s3_sync.signature import Keys, Signer, Untrusted, signature_line


def sign_pointer(data: bytes, bucket: str, prefix: str, signer: Signer) -> bytes:
    """
    Return a pointer with its signature.
    """
    return data + signature_line(signer.sign(_pointer_message(data, bucket, prefix)))


def signer_of_pointer(data: bytes, bucket: str, prefix: str, keys: Keys) -> str:
    """
    Return the id of the key that signed a pointer for this place.

    Raises:
        Untrusted: No trusted key has signed it for this place.
    """
    body, signature = split_pointer(data)
    return keys.signer_of(_pointer_message(body, bucket, prefix), signature)


def sign_manifest(data: bytes, signer: Signer) -> bytes:
    """
    Return a manifest with its signature, which replaces an existing one.
    """
    lines, _, chunks_at = split_manifest(data)
    return lines + signature_line(signer.sign(_manifest_message(lines))) + data[chunks_at:]


def signer_of_manifest(data: bytes, keys: Keys) -> str:
    """
    Return the id of the key that signed a manifest.

    Args:
        data: The manifest, at least up to its chunks.

    Raises:
        Untrusted: No trusted key has signed it.
        Invalid: It is not the beginning of a manifest.
    """
    lines, signature, _ = split_manifest(data)
    return keys.signer_of(_manifest_message(lines), signature)


def digest_of_manifest(data: bytes) -> str:
    """
    Return the digest by which a signed pointer names its manifest: the SHA-256 of its two lines.

    Raises:
        Invalid: It is not the beginning of a manifest.
    """
    return sha256_of(split_manifest(data)[0])


def check_named(data: bytes, digest: str) -> None:
    """
    Check that a manifest is the one that its pointer names, not another of the same content.

    Raises:
        Untrusted: It is another manifest.
        Invalid: It is not the beginning of a manifest.
    """
    if digest_of_manifest(data) != digest:
        raise Untrusted("it is not the manifest that the signed pointer names")


def _pointer_message(body: bytes, bucket: str, prefix: str) -> bytes:
    place = [part.encode(errors="surrogateescape") for part in (bucket, prefix)]
    return b"\0".join([b"s3-sync pointer", *place, body])


def _manifest_message(lines: bytes) -> bytes:
    return b"\0".join([b"s3-sync manifest", lines])
