"""
What is signed of a release, and what a signature proves: docs/reference/release-format.md. Pure.

The manifest's says: this publisher has seen this content, and vouches for the first line too. The
pointer's says: this publisher made it current, here and nowhere else, after what its history names.
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
    Return which key has signed a pointer, for this place.

    Raises:
        Untrusted: None of these has.
    """
    body, signature = split_pointer(data)
    return keys.signer_of(_pointer_message(body, bucket, prefix), signature)


def sign_manifest(data: bytes, signer: Signer) -> bytes:
    """
    Return a manifest with its signature, in place of one that it may have.
    """
    lines, _, chunks_at = split_manifest(data)
    return lines + signature_line(signer.sign(_manifest_message(lines))) + data[chunks_at:]


def signer_of_manifest(data: bytes, keys: Keys) -> str:
    """
    Return which key has signed a manifest.

    Args:
        data: All of it before its chunks, at least.

    Raises:
        Untrusted: None of these has.
        Invalid: It is not the beginning of a manifest.
    """
    lines, signature, _ = split_manifest(data)
    return keys.signer_of(_manifest_message(lines), signature)


def digest_of_manifest(data: bytes) -> str:
    """
    Return what a signed pointer says of its manifest: the SHA-256 of the two lines.

    Raises:
        Invalid: It is not the beginning of a manifest.
    """
    return sha256_of(split_manifest(data)[0])


def check_named(data: bytes, digest: str) -> None:
    """
    Refuse a manifest of the same content that is not the one that its pointer names.

    Raises:
        Untrusted: It is another one.
        Invalid: It is not the beginning of a manifest.
    """
    if digest_of_manifest(data) != digest:
        raise Untrusted("it is not the one that the pointer was signed with")


def _pointer_message(body: bytes, bucket: str, prefix: str) -> bytes:
    place = [part.encode(errors="surrogateescape") for part in (bucket, prefix)]
    return b"\0".join([b"s3-sync pointer", *place, body])


def _manifest_message(lines: bytes) -> bytes:
    return b"\0".join([b"s3-sync manifest", lines])
