"""
Releases for tests: the three objects as bytes, to be put as they are or altered first.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from s3_sync.digest import revision_of, sha256_of
from s3_sync.publisher.bundle import FileContent, write_bundle
from s3_sync.release.facts import Origin
from s3_sync.release.manifest import Manifest, serialise_manifest
from s3_sync.release.names import POINTER_KEY, bundle_key, manifest_key
from s3_sync.release.pointer import Pointer, serialise_pointer

AT = datetime(2026, 11, 20, 15, 0, tzinfo=UTC)
ORIGIN = Origin(by="tests", commit="0" * 40, message="A release for tests")


@dataclass(frozen=True)
class Release:
    """
    One release: what it says, and its bytes.
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
        Return all three by key, relative to the prefix; in the order of a publish.
        """
        return {
            bundle_key(self.manifest.bundle_sha256): self.bundle_bytes,
            manifest_key(self.revision): self.manifest_bytes,
            POINTER_KEY: self.pointer_bytes,
        }


def make_release(
    files: Mapping[str, bytes],
    *,
    executable: Collection[str] = (),
    history: tuple[str, ...] = (),
    at: datetime = AT,
    origin: Origin = ORIGIN,
) -> Release:
    """
    Make the release of some files.
    """
    contents = [FileContent(path, files[path], path in executable) for path in sorted(files)]
    out = io.BytesIO()
    rows = {row.path: row for row in write_bundle(contents, out)}
    bundle = out.getvalue()
    revision = revision_of((row.path, row.sha256, row.is_executable) for row in rows.values())
    manifest = Manifest(revision, at, origin, sha256_of(bundle), len(bundle), rows)
    manifest_bytes = serialise_manifest(manifest)
    pointer = Pointer(revision, sha256_of(manifest_bytes), len(manifest_bytes), at, origin, history)
    return Release(pointer, manifest, serialise_pointer(pointer), manifest_bytes, bundle)
