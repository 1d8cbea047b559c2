"""
The releases of a bucket: what is current, what is there, what is pinned.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

from s3_sync.publisher.store import Store
from s3_sync.release.manifest import (
    FACTS_LIMIT_BYTES,
    Head,
    Manifest,
    parse_facts,
    parse_manifest,
)
from s3_sync.release.names import (
    BUNDLE_FOLDER,
    LEFT_FOLDER,
    MANIFEST_FOLDER,
    MANIFEST_SUFFIX,
    PIN_FOLDER,
    POINTER_KEY,
    bundle_key,
    manifest_key,
)
from s3_sync.release.pointer import Pointer, parse_pointer
from s3_sync.release.rows import Invalid
from s3_sync.revision import SHORT_DIGITS, is_revision, short
from sidecar_runtime.errors import EXIT_SETTINGS, SidecarError

READERS = 8

_BEGINNING = re.compile(rf"[0-9a-f]{{{SHORT_DIGITS},63}}")


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

    @property
    def head_bytes(self) -> int:
        """
        Where the chunks begin.
        """
        return self.data.index(b"\n", self.data.index(b"\n") + 1) + 1


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """
    A release of the bucket.

    Args:
        used_at: When it was published or left last, by the clock of S3; of the current one, at
            least that.
        summary: What its head says; None where it says nothing.
    """

    revision: str
    used_at: datetime
    summary: Head | None


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
    key = bundle_key(manifest.head.bundle_sha256)
    bundle = store.look(key)
    is_there = bundle is not None and bundle.size_bytes == manifest.head.bundle_bytes
    is_whole = manifest.revision == revision and is_there
    if is_whole and reads_bundle:
        is_whole = store.sha256_of(key) == manifest.head.bundle_sha256
    return Kept(stored.data, stored.etag, manifest, is_whole)


def resolve(store: Store, text: str, folder: str = MANIFEST_FOLDER) -> str:
    """
    Return the revision that a person means by it, or by its first digits.

    Args:
        folder: Of the objects that are called by revisions.

    Raises:
        RevisionError: There is none, or more than one.
    """
    if is_revision(text):
        return text
    if not _BEGINNING.fullmatch(text):
        raise RevisionError(
            "release_unknown",
            f"{text!r} is not a revision",
            f"A revision has 64 hexadecimal digits; the first {SHORT_DIGITS} are enough where no "
            "other begins so. `s3-sync releases` lists them.",
        )
    keys = [found.key for found in store.list(f"{folder}{text}")]
    names = [key.removeprefix(folder).removesuffix(MANIFEST_SUFFIX) for key in keys]
    match [name for name in names if is_revision(name)]:
        case [revision]:
            return revision
        case []:
            raise unknown(store, text)
        case found:
            raise RevisionError(
                "release_unknown",
                f"{len(found)} releases begin with {text} in {store.url}",
                "Give more digits: `s3-sync releases --output json` shows all of them.",
            )


def unknown(store: Store, text: str) -> RevisionError:
    return RevisionError(
        "release_unknown",
        f"there is no release {short(text)} in {store.url}",
        "`s3-sync releases` lists those that are there; old ones may have been pruned.",
    )


def read_shown(store: Store, pointer: Pointer | None) -> Manifest | None:
    """
    Return the manifest of the current release; None where it is damaged, or there is none.
    """
    stored = store.read(manifest_key(pointer.revision)) if pointer else None
    try:
        return parse_manifest(stored.data) if stored else None
    except Invalid:
        return None


def find_release(store: Store, revision: str) -> Kept:
    """
    Return the release that was asked for.

    Raises:
        RevisionError: There is none of that name.
    """
    kept = read_release(store, revision)
    if kept is None:
        raise unknown(store, revision)
    return kept


def incomplete(revision: str) -> ReleaseError:
    return ReleaseError(
        "release_incomplete",
        f"release {short(revision)} is not whole: its manifest or its bundle is missing or damaged",
        "Publish its content again: that puts back what is missing.",
    )


def is_shown(store: Store, pointer: Pointer, *, reads_bundle: bool = False) -> bool:
    """
    Whether all that a pointer names is there.
    """
    kept = read_release(store, pointer.revision, reads_bundle=reads_bundle)
    if kept is None or not kept.is_whole:
        return False
    return (len(kept.data), kept.head_bytes) == (pointer.manifest_bytes, pointer.head_bytes)


def read_pins(store: Store) -> set[str]:
    """
    Return the revisions that are pinned in the bucket.
    """
    names = (found.key.removeprefix(PIN_FOLDER) for found in store.list(PIN_FOLDER))
    return set(filter(is_revision, names))


def read_left(store: Store) -> dict[str, datetime]:
    """
    Return when releases were current last, by S3's clock; the current one may be missing.
    """
    found = ((f.key.removeprefix(LEFT_FOLDER), f.modified_at) for f in store.list(LEFT_FOLDER))
    return {revision: at for revision, at in found if is_revision(revision)}


def list_releases(store: Store, current: str = "") -> list[CatalogEntry]:
    """
    Return the releases that are there, those used last first, without their summaries.

    Args:
        current: The one that is in use now.
    """
    left = read_left(store)
    found = []
    for listed in store.list(MANIFEST_FOLDER):
        name = listed.key.removeprefix(MANIFEST_FOLDER)
        revision = name.removesuffix(MANIFEST_SUFFIX)
        if name != revision and is_revision(revision):
            used_at = max(listed.modified_at, left.get(revision, listed.modified_at))
            found.append(CatalogEntry(revision, used_at, None))

    def order(entry: CatalogEntry) -> tuple[bool, datetime, str]:
        return entry.revision == current, entry.used_at, entry.revision

    return sorted(found, key=order, reverse=True)


def summarise(store: Store, entries: Iterable[CatalogEntry]) -> list[CatalogEntry]:
    """
    Return releases with what their heads say: one small request each, several at once.
    """

    def read(entry: CatalogEntry) -> CatalogEntry:
        stored = store.read(manifest_key(entry.revision), head_bytes=FACTS_LIMIT_BYTES)
        try:
            summary = parse_facts(stored.data) if stored else None
        except Invalid:
            summary = None
        return CatalogEntry(entry.revision, entry.used_at, summary)

    with ThreadPoolExecutor(READERS) as readers:
        return list(readers.map(read, entries))


def find_stranger(store: Store) -> str:
    """
    Return something under the prefix that is no part of a release; empty where there is none.
    """
    ours = (POINTER_KEY, MANIFEST_FOLDER, BUNDLE_FOLDER, PIN_FOLDER, LEFT_FOLDER)
    return next((found.key for found in store.list("") if not found.key.startswith(ours)), "")
