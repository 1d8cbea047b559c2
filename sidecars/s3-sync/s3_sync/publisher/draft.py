"""
A release that is built from a folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime

from s3_sync.publisher.bundle import write_bundle
from s3_sync.publisher.local.folder import Look, contents
from s3_sync.publisher.local.folder_errors import FolderError
from s3_sync.publisher.local.scratch import temporary_failed
from s3_sync.publisher.progress import Progress
from s3_sync.release.facts import Checked, Origin
from s3_sync.release.manifest import Manifest, make_manifest, parse_manifest
from s3_sync.release.rows import Invalid
from s3_sync.release.signed import sign_manifest
from s3_sync.signature import Signer


class Draft:
    """
    The content of a folder, and the bundle and manifest that are built from it.

    Args:
        path: Where to build the bundle.
        signer: Signs the manifest; None: it is not signed.
    """

    def __init__(
        self,
        revision: str,
        seen: Look,
        digests: Mapping[str, str],
        origin: Origin,
        checked: Checked | None,
        path: str,
        progress: Progress,
        signer: Signer | None,
    ) -> None:
        self._signer = signer
        self.revision = revision
        self._seen = seen
        self._progress = progress
        self._digests = digests
        self._origin = origin
        self._checked = checked
        self._path = path
        self._manifest: Manifest | None = None
        self._data = b""

    def build(self) -> None:
        """
        Build bundle and manifest.

        Raises:
            FolderError: The folder has changed, or the bundle cannot be written.
        """
        try:
            tell = self._progress.counter("Bundling files", len(self._seen.files))
            with open(self._path, "wb") as out:
                rows = write_bundle(contents(self._seen, self._digests, tell), out)
            with open(self._path, "rb") as bundle:
                sha256 = hashlib.file_digest(bundle, "sha256").hexdigest()
                size = bundle.seek(0, 2)
        except OSError as error:
            raise temporary_failed(f"cannot build the bundle in {self._path}", error) from error
        now = datetime.now(UTC)
        self._manifest, self._data = make_manifest(
            rows, now, self._origin, sha256, size, self._checked
        )
        if self._signer is not None:
            self._data = sign_manifest(self._data, self._signer)
        try:
            parse_manifest(self._data)
        except Invalid as error:
            said = f"readers would refuse the manifest: {error}"
            raise FolderError("release_too_large", said) from error

    def ready(self) -> tuple[str, Manifest, bytes]:
        """
        Return the path of the bundle, the manifest and its bytes; build them if necessary.
        """
        if self._manifest is None:
            self.build()
        assert self._manifest is not None
        return self._path, self._manifest, self._data
