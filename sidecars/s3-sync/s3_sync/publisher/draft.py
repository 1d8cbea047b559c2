"""
A release on its way to the bucket.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime

from s3_sync.publisher.bundle import write_bundle
from s3_sync.publisher.catalog import Kept, incomplete, read_release
from s3_sync.publisher.folder import Look, contents
from s3_sync.publisher.folder_errors import FolderError
from s3_sync.publisher.progress import Progress, Watched
from s3_sync.publisher.store import ConditionFailed, ConditionUnknown, Store
from s3_sync.release.facts import Origin
from s3_sync.release.manifest import Manifest, make_manifest, parse_manifest
from s3_sync.release.names import bundle_key, manifest_key
from s3_sync.release.rows import Invalid


class Draft:
    """
    What a folder was when it was looked at, and the objects that are made of it.

    Args:
        path: Where the bundle is built.
    """

    def __init__(
        self, revision: str, seen: Look, digests: Mapping[str, str], origin: Origin, path: str
    ) -> None:
        self.revision = revision
        self.seen = seen
        self._digests = digests
        self._origin = origin
        self._path = path
        self._manifest: Manifest | None = None
        self._data = b""

    def build(self, progress: Progress) -> None:
        """
        Build bundle and manifest.

        Raises:
            FolderError: The folder is not what it was, or there is no room for the bundle.
        """
        try:
            tell = progress.counter("Bundling files", len(self.seen.files))
            with open(self._path, "wb") as out:
                rows = write_bundle(contents(self.seen, self._digests, tell), out)
            with open(self._path, "rb") as bundle:
                sha256 = hashlib.file_digest(bundle, "sha256").hexdigest()
                size = bundle.seek(0, 2)
        except OSError as error:
            raise FolderError(
                "temporary_failed",
                f"the bundle cannot be built in {self._path}: {error.strerror}",
                "It needs room for the compressed folder; TMPDIR names another place.",
            ) from error
        now = datetime.now(UTC)
        self._manifest, self._data = make_manifest(rows, now, self._origin, sha256, size)
        try:
            parse_manifest(self._data)
        except Invalid as error:
            said = f"no reader would take it: of the manifest, {error}"
            raise FolderError("release_too_large", said) from error

    def upload(self, store: Store, kept: Kept | None, progress: Progress) -> Kept:
        """
        Put bundle and then manifest in their place, unless the release is whole already.

        A bundle without a manifest is written again: the one that is there may be pruned just now.

        Args:
            kept: The release as it is in the bucket; None where it is not.

        Returns:
            The release as it is in the bucket now.

        Raises:
            ReleaseError: Another publisher writes the same release, and does not complete it.
        """
        if kept is not None and kept.is_whole:
            return kept
        if self._manifest is None:
            self.build(progress)
        assert self._manifest is not None
        head = self._manifest.head
        tell = progress.bytes_counter("Uploading", head.bundle_bytes)
        with Watched(self._path, tell) as bundle:
            store.put(bundle_key(head.bundle_sha256), bundle)
        return self._put_manifest(store, kept)

    def _put_manifest(self, store: Store, kept: Kept | None) -> Kept:
        key = manifest_key(self.revision)
        try:
            if kept is None:
                store.put(key, self._data, if_absent=True)
            else:
                store.put(key, self._data, if_etag=kept.etag)
        except ConditionUnknown:
            store.put(key, self._data)
        except ConditionFailed:  # another publish of the same content, or our own lost answer
            there = read_release(store, self.revision)
            if there is None or not there.is_whole:
                raise incomplete(self.revision) from None
            return there
        return Kept(self._data, "", self._manifest, True)
