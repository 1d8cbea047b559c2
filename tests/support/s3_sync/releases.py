"""
Releases for tests: their three objects as bytes, to be stored unchanged or modified.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from s3_sync.names import release_id_of, sha256_of
from s3_sync.publisher.folder import FileContent, write_bundle
from s3_sync.release.format import (
    POINTER_KEY,
    Manifest,
    Pointer,
    Turn,
    bundle_key,
    manifest_key,
    time_text,
    write_manifest,
    write_pointer,
)

AT = datetime(2026, 11, 20, 15, 0, tzinfo=UTC)
ABSENT = f"sha256-{'0123456789abcdef' * 4}"
ORIGIN = {"by": "tests", "commit": "0" * 40, "message": "A release for tests"}


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
        Return all three objects by key relative to the prefix, in the order of a
        publish.
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
    history: Sequence[str] = (),
    at: datetime = AT,
    origin: Mapping[str, str] = ORIGIN,
) -> Release:
    """
    Create a release of these files, whose sequence continues its history.

    Args:
        history: Revisions, newest first.
    """
    contents = [
        FileContent(path, files[path], path in executable) for path in sorted(files)
    ]
    out = io.BytesIO()
    written = write_bundle(contents, out)
    bundle = out.getvalue()
    revision = release_id_of(file[:4] for file in written.values())
    when = time_text(at)
    manifest = Manifest(revision, written, sha256_of(bundle), len(bundle), when, origin)
    count = len(history)
    pointer = Pointer(
        Turn(revision, count + 1, when),
        origin,
        tuple(Turn(name, count - n, when) for n, name in enumerate(history)),
    )
    return Release(
        pointer, manifest, write_pointer(pointer), write_manifest(manifest), bundle
    )
