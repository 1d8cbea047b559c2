"""
Releases for tests: their three objects as bytes, to be stored unchanged or modified.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from s3_sync.digest import sha256_of
from s3_sync.publisher.bundle import FileContent, write_bundle
from s3_sync.release.facts import Checked, Origin
from s3_sync.release.manifest import Manifest, make_manifest, split_manifest
from s3_sync.release.names import POINTER_KEY, bundle_key, manifest_key
from s3_sync.release.pointer import Pointer, Turn, serialize_pointer
from s3_sync.release.rows import File
from s3_sync.release.signed import digest_of_manifest, sign_manifest
from s3_sync.signature import Signer

AT = datetime(2026, 11, 20, 15, 0, tzinfo=UTC)
ABSENT = "0123456789abcdef" * 4
ORIGIN = Origin(by="tests", commit="0" * 40, message="A release for tests")


@dataclass(frozen=True)
class Release:
    """
    A release: its content and its bytes.
    """

    pointer: Pointer
    manifest: Manifest
    pointer_bytes: bytes
    manifest_bytes: bytes
    bundle_bytes: bytes

    @property
    def revision(self) -> str:
        return self.manifest.revision

    def objects(self) -> dict[str, bytes]:
        """
        Return all three objects by key relative to the prefix, in the order of a publish.
        """
        return {
            bundle_key(self.manifest.head.bundle_sha256): self.bundle_bytes,
            manifest_key(self.revision): self.manifest_bytes,
            POINTER_KEY: self.pointer_bytes,
        }


def make_release(
    files: Mapping[str, bytes],
    *,
    executable: Collection[str] = (),
    history: Sequence[str] = (),
    at: datetime = AT,
    origin: Origin = ORIGIN,
    checked: Checked | None = None,
    signer: Signer | None = None,
) -> Release:
    """
    Create a release of these files.

    Args:
        signer: Signs the manifest, but not the pointer, whose signature depends on the prefix.
    """
    contents = [FileContent(path, files[path], path in executable) for path in sorted(files)]
    out = io.BytesIO()
    rows = write_bundle(contents, out)
    return seal(
        rows,
        out.getvalue(),
        history=history,
        at=at,
        origin=origin,
        checked=checked,
        signer=signer,
    )


def seal(
    rows: Sequence[File],
    bundle: bytes,
    *,
    history: Sequence[str] = (),
    at: datetime = AT,
    origin: Origin = ORIGIN,
    checked: Checked | None = None,
    signer: Signer | None = None,
) -> Release:
    """
    Create a release from rows and a bundle, even if they contradict each other.
    """
    manifest, data = make_manifest(rows, at, origin, sha256_of(bundle), len(bundle), checked)
    if signer is not None:
        data = sign_manifest(data, signer)
    pointer = point_to(manifest, data, history, at)
    return Release(pointer, manifest, serialize_pointer(pointer), data, bundle)


def point_to(
    manifest: Manifest, data: bytes, history: Sequence[str] = (), at: datetime = AT
) -> Pointer:
    """
    Create a pointer whose sequence continues its history.

    Args:
        history: Revisions, newest first.
    """
    count = len(history)
    turns = tuple(Turn(name, count - n, at) for n, name in enumerate(history))
    _, signature, head_bytes = split_manifest(data)
    turn = Turn(manifest.revision, count + 1, at)
    digest = digest_of_manifest(data) if signature else ""
    return Pointer(turn, len(data), head_bytes, manifest.head.origin, turns, digest)
