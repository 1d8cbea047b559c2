"""
A whole release in hand: built from a folder, or downloaded and verified.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import NamedTuple

from pathspec import GitIgnoreSpec

from s3_sync.digest import revision_of
from s3_sync.publisher.catalog import damaged, read_manifest
from s3_sync.publisher.folder import (
    FolderError,
    Look,
    check_same,
    look,
    read_files,
    too_large,
)
from s3_sync.publisher.report import Progress
from s3_sync.publisher.store import Store
from s3_sync.release import format as form
from s3_sync.release.bundle import FileContent, IncomingContent, write_bundle
from s3_sync.s3.refusals import ObjectError


class Parcel(NamedTuple):
    """
    A release: its manifest, and its bundle in a file.

    Args:
        data: The manifest as it is in the bucket, or will be.
    """

    manifest: form.Manifest
    data: bytes
    path: str

    @property
    def revision(self) -> str:
        return self.manifest.revision

    def checked(self, checked: form.Checked | None) -> Parcel:
        """
        Return the parcel with the result of an Airflow check in its manifest.
        """
        manifest = self.manifest._replace(checked=checked)
        return self._replace(manifest=manifest, data=form.write_manifest(manifest))

    def write(self, folder: str) -> list[str]:
        """
        Write the files into a folder; return their paths.

        Raises:
            ObjectError: The bundle does not match the manifest.
            OSError: They cannot be written.
        """
        for content in self.contents():
            path = os.path.join(folder, content.path)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(content.data)
                os.fchmod(file.fileno(), 0o755 if content.is_executable else 0o644)
        return list(self.manifest.files)

    def contents(self) -> Iterator[FileContent]:
        """
        Yield each file, verified in the same way as in a pod.

        Raises:
            ObjectError: The bundle does not match the manifest.
        """
        offsets = self.manifest.locate()
        with open(self.path, "rb") as bundle:
            for path, file in self.manifest.files.items():
                data = bytearray()
                content = IncomingContent(file, data.extend)
                bundle.seek(offsets[path])
                content.write(bundle.read(file.stored_bytes))
                content.finish()
                yield FileContent(path, bytes(data), file.is_executable)


@contextmanager
def scratch(purpose: str) -> Iterator[str]:
    """
    Yield a temporary folder, removed at the end.

    Raises:
        FolderError: It cannot be created, or written inside the context.
    """
    try:
        with tempfile.TemporaryDirectory(
            prefix=f"s3-sync-{purpose}-", ignore_cleanup_errors=True
        ) as path:
            yield path
    except OSError as error:
        raise FolderError(
            "temporary_failed",
            f"cannot read or write {error.filename or 'a temporary file'}: {error.strerror}",
            "The temporary folder needs room for all files. Set TMPDIR to use another place.",
        ) from error


def build_parcel(
    folder: str,
    rules: GitIgnoreSpec,
    place: str,
    origin: form.Origin,
    now: datetime,
    progress: Progress,
) -> tuple[Parcel, Look]:
    """
    Build a release from a folder, which is read once and must not change meanwhile.

    Args:
        place: The folder for the bundle.

    Raises:
        FolderError: The folder cannot be released, or changes.
        OSError: The bundle cannot be written.
    """
    seen = look(folder, rules)
    path = os.path.join(place, "bundle.zip")
    tell = progress.steps("Reading files", len(seen.files))
    with open(path, "wb") as out:
        files = write_bundle(read_files(seen, tell), out)
    check_same(seen, look(folder, rules))
    with open(path, "rb") as bundle:
        sha256 = hashlib.file_digest(bundle, "sha256").hexdigest()
    revision = revision_of(file[:4] for file in files.values())
    manifest = form.Manifest(revision, files, sha256, os.path.getsize(path), now, origin)
    data = form.write_manifest(manifest)
    try:
        form.parse_manifest(data, revision)
    except form.Invalid as error:
        raise too_large(f"readers would refuse the manifest: {error}") from error
    return Parcel(manifest, data, path), seen


def download_parcel(store: Store, revision: str, place: str, progress: Progress) -> Parcel:
    """
    Download a release, and verify every file.

    Raises:
        RevisionError: It does not exist.
        ReleaseError: It is damaged.
        OSError: It cannot be stored.
    """
    manifest, stored = read_manifest(store, revision)
    path = os.path.join(place, "bundle.zip")
    key = form.bundle_key(manifest.bundle_sha256)
    tell = progress.steps("Downloading", manifest.bundle_bytes)
    sha256 = store.download(key, path, tell)
    if sha256 != manifest.bundle_sha256:
        why = f"its SHA-256 is {sha256}" if sha256 else "it does not exist"
        raise damaged(store, revision, f"{key}: {why}")
    parcel = Parcel(manifest, stored.data, path)
    try:
        for _ in parcel.contents():
            pass
    except ObjectError as error:
        raise damaged(store, revision, error.message) from None
    return parcel
