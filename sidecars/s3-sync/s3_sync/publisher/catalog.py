"""
The releases of a bucket: what is current, what is there, what is pinned.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

from s3_sync.digest import is_revision, sha256_of
from s3_sync.publisher.store import Store
from s3_sync.release.manifest import (
    HEAD_LIMIT_BYTES,
    Manifest,
    Summary,
    parse_manifest,
    parse_summary,
)
from s3_sync.release.names import (
    BUNDLE_FOLDER,
    MANIFEST_FOLDER,
    PIN_FOLDER,
    POINTER_KEY,
    bundle_key,
    manifest_key,
)
from s3_sync.release.pointer import Pointer, parse_pointer
from s3_sync.release.rows import Invalid
from sidecar_runtime.errors import EXIT_SETTINGS, SidecarError

READERS = 8


class ReleaseError(SidecarError):
    """
    What is in the bucket is in the way; what is current stays so.
    """


class RevisionError(SidecarError):
    """
    The revision that was typed matches no release.
    """

    exit_code = EXIT_SETTINGS


@dataclass(frozen=True, slots=True)
class Current:
    """
    The pointer as it was read.
    """

    pointer: Pointer
    data: bytes
    etag: str


@dataclass(frozen=True, slots=True)
class Kept:
    """
    The manifest of a release as it was read.

    Args:
        is_whole: Whether it is valid and its bundle is there.
    """

    data: bytes
    etag: str
    manifest: Manifest | None
    is_whole: bool


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """
    A release of the bucket.

    Args:
        written_at: When its manifest was written, by the clock of S3.
        summary: What its head says; None where it says nothing.
    """

    revision: str
    written_at: datetime
    summary: Summary | None


def read_current(store: Store) -> Current | None:
    """
    Return what is current; None where nothing was published yet.

    Raises:
        ReleaseError: There is something else in its place.
    """
    stored = store.read(POINTER_KEY)
    if stored is None:
        return None
    try:
        return Current(parse_pointer(stored.data), stored.data, stored.etag)
    except Invalid as error:
        raise ReleaseError(
            "pointer_invalid",
            f"{store.url}{POINTER_KEY} is not a pointer to releases: {error}",
            "It is left as it is. Take another prefix, a newer s3-sync, or delete the object.",
        ) from error


def read_release(store: Store, revision: str, *, reads_bundle: bool = False) -> Kept | None:
    """
    Return a release, valid or not; None where it has no manifest.

    Args:
        reads_bundle: Whether the bundle is read through and compared, not only looked for.
    """
    stored = store.read(manifest_key(revision))
    if stored is None:
        return None
    try:
        manifest = parse_manifest(stored.data)
    except Invalid:
        return Kept(stored.data, stored.etag, None, False)
    key = bundle_key(manifest.bundle_sha256)
    bundle = store.look(key)
    is_there = bundle is not None and bundle.size_bytes == manifest.bundle_bytes
    is_whole = manifest.revision == revision and is_there
    if is_whole and reads_bundle:
        is_whole = store.sha256_of(key) == manifest.bundle_sha256
    return Kept(stored.data, stored.etag, manifest, is_whole)


def find_release(store: Store, revision: str) -> Kept:
    """
    Return the release that was asked for.

    Raises:
        RevisionError: There is none of that name.
    """
    kept = read_release(store, revision)
    if kept is None:
        raise RevisionError(
            "release_unknown",
            f"there is no release {revision!r} in {store.url}",
            "`s3-sync releases` lists those that are there; old ones may have been pruned.",
        )
    return kept


def incomplete(revision: str) -> ReleaseError:
    return ReleaseError(
        "release_incomplete",
        f"release {revision} is not whole: its manifest or its bundle is missing or damaged",
        "Publish its content again: that puts back what is missing.",
    )


def is_shown(store: Store, pointer: Pointer, *, reads_bundle: bool = False) -> bool:
    """
    Whether all that a pointer names is there.
    """
    kept = read_release(store, pointer.revision, reads_bundle=reads_bundle)
    return kept is not None and kept.is_whole and sha256_of(kept.data) == pointer.manifest_sha256


def read_pins(store: Store) -> set[str]:
    """
    Return the revisions that are pinned in the bucket.
    """
    names = (found.key.removeprefix(PIN_FOLDER) for found in store.list(PIN_FOLDER))
    return set(filter(is_revision, names))


def list_releases(store: Store) -> list[CatalogEntry]:
    """
    Return the releases that are there, newest first, without their summaries.
    """
    found = []
    for listed in store.list(MANIFEST_FOLDER):
        name = listed.key.removeprefix(MANIFEST_FOLDER)
        revision = name.removesuffix(".json")
        if name.endswith(".json") and is_revision(revision):
            found.append(CatalogEntry(revision, listed.modified_at, None))
    return sorted(found, key=lambda entry: (entry.written_at, entry.revision), reverse=True)


def summarise(store: Store, entries: Iterable[CatalogEntry]) -> list[CatalogEntry]:
    """
    Return releases with what their heads say: one small request each, several at once.
    """

    def read(entry: CatalogEntry) -> CatalogEntry:
        stored = store.read(manifest_key(entry.revision), head_bytes=HEAD_LIMIT_BYTES)
        try:
            summary = parse_summary(stored.data) if stored else None
        except Invalid:
            summary = None
        return CatalogEntry(entry.revision, entry.written_at, summary)

    with ThreadPoolExecutor(READERS) as readers:
        return list(readers.map(read, entries))


def find_stranger(store: Store) -> str:
    """
    Return something under the prefix that is no part of a release; empty where there is none.
    """
    ours = (POINTER_KEY, MANIFEST_FOLDER, BUNDLE_FOLDER, PIN_FOLDER)
    return next((found.key for found in store.list("") if not found.key.startswith(ours)), "")
