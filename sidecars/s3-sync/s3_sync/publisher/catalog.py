"""
The releases in a bucket: which exist, which is current, which are pinned.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from s3_sync.publisher.store import Listed, Store
from s3_sync.release.facts import time_text
from s3_sync.release.manifest import (
    FACTS_LIMIT_BYTES,
    Head,
    Manifest,
    parse_facts,
    parse_head,
    parse_manifest,
    split_manifest,
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
from s3_sync.release.signed import digest_of_manifest, signer_of_manifest, signer_of_pointer
from s3_sync.revision import SHORT_DIGITS, is_revision, short
from s3_sync.s3.refusals import ObjectError, SealedError
from s3_sync.signature import Untrusted
from sidecar_runtime.errors import EXIT_SETTINGS, SidecarError

READERS = 8
# A pointer records when its release became current, by the clock of S3. Its writer ensures that
# the object is dated at most this much later.
WRITTEN_WITHIN = timedelta(minutes=1)

_BEGINNING = re.compile(rf"[0-9a-f]{{{SHORT_DIGITS},63}}")


class ReleaseError(SidecarError):
    """
    The objects in the bucket prevent the command; the current release has not changed.
    """


class RevisionError(SidecarError):
    """
    The given revision matches no release.
    """

    exit_code = EXIT_SETTINGS


class Unmatched(RevisionError):
    """
    The given revision is valid, but no release has it.
    """


@dataclass(frozen=True, slots=True)
class Current:
    """
    The pointer as it was read.

    Args:
        pointer: None if the object is not a pointer.
        signed_by: The key that signed it; empty if no signature is required.
        refusal: Why it is not trusted, or not a pointer; empty if it is trusted.
        modified_at: When it was written, by S3's clock; None if the server does not report it.
    """

    pointer: Pointer | None
    data: bytes
    etag: str
    signed_by: str = ""
    refusal: str = ""
    modified_at: datetime | None = None

    @property
    def trusted(self) -> Pointer | None:
        """
        The pointer, if the next one may continue its history.
        """
        return None if self.refusal else self.pointer

    @property
    def replayed(self) -> str:
        """
        Why it looks like an old pointer that was restored; empty if it does not.

        S3 dates the object; a writer can backdate it only by deleting newer versions, or by
        completing a multipart upload that began at that time.
        """
        pointer, at = self.trusted, self.modified_at
        if pointer is None or at is None or at - pointer.turn.since <= WRITTEN_WITHIN:
            return ""
        return (
            f"{POINTER_KEY} is dated {time_text(pointer.turn.since)} but was written at "
            f"{time_text(at)}: an old pointer was restored, or the bucket was copied"
        )


@dataclass(frozen=True, slots=True)
class Kept:
    """
    The manifest of a release as it was read.

    Args:
        etag: Empty if it was not read.
        is_whole: Whether it is valid and its bundle exists.
        signed_by: The key that signed it; empty if no signature is required.
        refusal: Why it is not trusted; empty if it is.
        sealed: Why nobody can read the manifest or the bundle; None if they can be read.
    """

    data: bytes
    etag: str
    manifest: Manifest | None
    is_whole: bool
    signed_by: str = ""
    refusal: str = ""
    sealed: SealedError | None = None

    @property
    def is_good(self) -> bool:
        """
        Whether it can become current without any repair.
        """
        return self.is_whole and not self.refusal

    @property
    def head_bytes(self) -> int:
        """
        The offset of the chunks.
        """
        return split_manifest(self.data)[2]


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """
    A release in the bucket.

    Args:
        used_at: When it was last published or replaced, by the clock of S3; the current release
            is in use beyond that.
        summary: The head of its manifest; None if that is missing, invalid or unread.
        unread: The reason why the manifest could not be read; empty if it was.
    """

    revision: str
    used_at: datetime
    summary: Head | None
    refusal: str = ""
    unread: str = ""


def untrusted(store: Store, key: str, why: str) -> ReleaseError:
    return ReleaseError(
        "release_untrusted",
        f"{store.url}{key} is refused: {why}",
        "Sign with a trusted key, or add the missing public key. If the keys are correct, find out "
        "who else writes there. `s3-sync publish --sign-key` replaces untrusted objects.",
    )


def read_current(store: Store) -> Current | None:
    """
    Return the trusted pointer; None if nothing has been published yet.

    Raises:
        ReleaseError: The object is not a pointer, or it is not trusted.
    """
    current = read_replaceable(store)
    if current is not None and current.refusal:
        raise untrusted(store, POINTER_KEY, current.refusal)
    return current


def read_replaceable(store: Store, *, repairs: bool = False) -> Current | None:
    """
    Return the pointer, trusted or not, for a command that replaces it.

    Args:
        repairs: Whether to accept an object that is not a pointer, or that nobody can read.

    Raises:
        ReleaseError: The object is not a pointer, and may be in use.
    """
    try:
        current = read_pointer(store)
    except SealedError as error:
        if not repairs:
            raise
        return Current(None, b"", "", "", error.message)
    if current is not None and current.pointer is None and not repairs:
        raise ReleaseError(
            "pointer_invalid",
            f"{store.url}{POINTER_KEY} is not a pointer to releases: {current.refusal}",
            "It was not changed. Use another prefix or a newer s3-sync. To replace an object that "
            "is not needed: `rollback REVISION --repair`, or publish or promote with --repair.",
        )
    return current


def read_pointer(store: Store) -> Current | None:
    """
    Return the object at the pointer's key, whatever it contains; None if it does not exist.
    """
    stored = store.read(POINTER_KEY)
    if stored is None:
        return None
    data, etag, at = stored.data, stored.etag, stored.modified_at
    signer = refusal = ""
    if store.keys is not None:
        try:
            signer = signer_of_pointer(data, store.bucket, store.prefix, store.keys)
        except Untrusted as error:
            refusal = str(error)
    try:
        return Current(parse_pointer(data), data, etag, signer, refusal, at)
    except Invalid as error:
        return Current(None, data, etag, "", str(error), at)


def check_not_replayed(current: Current) -> None:
    """
    Refuse an old pointer where a command would choose the release by its history.

    Raises:
        ReleaseError: It was restored.
    """
    if current.replayed:
        raise ReleaseError(
            "release_replayed",
            current.replayed,
            "Pass the revision to the command (see `s3-sync releases`), or publish. Both write a "
            "pointer with a higher sequence.",
        )


def read_release(store: Store, revision: str, *, reads_bundle: bool = False) -> Kept | None:
    """
    Return a release, valid or not; None if it has no manifest.

    Args:
        reads_bundle: Whether to read and hash the whole bundle, not only its first byte.
    """
    try:
        stored = store.read(manifest_key(revision))
    except SealedError as error:
        return Kept(b"", "", None, False, sealed=error)
    if stored is None:
        return None
    try:
        manifest = parse_manifest(stored.data)
    except Invalid:
        return Kept(stored.data, stored.etag, None, False)
    if manifest.revision != revision:
        return Kept(stored.data, stored.etag, None, False)
    signer, refusal = _signer_of(store, stored.data)
    key = bundle_key(manifest.head.bundle_sha256)
    try:
        is_there = store.readable_bytes(key) == manifest.head.bundle_bytes
    except SealedError as error:
        return Kept(stored.data, stored.etag, manifest, False, signer, refusal, error)
    if is_there and reads_bundle:
        is_there = store.sha256_of(key) == manifest.head.bundle_sha256
    return Kept(stored.data, stored.etag, manifest, is_there, signer, refusal)


def _signer_of(store: Store, manifest: bytes) -> tuple[str, str]:
    """
    Return the key that signed a manifest, or why it is not trusted; both empty without keys.
    """
    try:
        return signer_of_manifest(manifest, store.keys) if store.keys else "", ""
    except Untrusted as error:
        return "", str(error)


def resolve(store: Store, text: str, folder: str = MANIFEST_FOLDER) -> str:
    """
    Return the revision for a full id or its first digits.

    Args:
        folder: The folder of the objects whose names are revisions.

    Raises:
        Unmatched: No release matches.
        RevisionError: More than one matches, or the text is not a revision.
    """
    if is_revision(text):
        return text
    if not _BEGINNING.fullmatch(text):
        raise RevisionError(
            "release_unknown",
            f"{text!r} is not a revision",
            f"A revision has 64 hexadecimal digits; the first {SHORT_DIGITS} suffice if they are "
            "unique. `s3-sync releases` lists the revisions.",
        )
    keys = [found.key for found in store.list(f"{folder}{text}")]
    names = [key.removeprefix(folder).removesuffix(MANIFEST_SUFFIX) for key in keys]
    match [name for name in names if is_revision(name)]:
        case [revision]:
            return revision
        case []:
            raise unknown(store, text, "pinned release" if folder == PIN_FOLDER else "release")
        case found:
            raise RevisionError(
                "release_unknown",
                f"{len(found)} releases in {store.url} begin with {text}",
                "Pass more digits: `s3-sync releases --output json` shows full revisions.",
            )


def unknown(store: Store, text: str, what: str = "release") -> Unmatched:
    return Unmatched(
        "release_unknown",
        f"{store.url} has no {what} {short(text)}",
        "`s3-sync releases` lists the existing releases; old ones may have been pruned.",
    )


def read_manifest(store: Store, revision: str) -> Manifest | None:
    """
    Return the manifest of a release; None if it is missing, damaged, sealed or not trusted.
    """
    try:
        stored = store.read(manifest_key(revision))
        manifest = parse_manifest(stored.data) if stored else None
    except (Invalid, SealedError):
        return None
    if stored is None or manifest is None or manifest.revision != revision:
        return None
    return None if _signer_of(store, stored.data)[1] else manifest


def find_release(store: Store, revision: str) -> Kept:
    """
    Return the release with this revision.

    Raises:
        RevisionError: It does not exist.
        ReleaseError: It is not trusted.
    """
    kept = read_release(store, revision)
    if kept is None:
        raise unknown(store, revision)
    if kept.refusal:
        raise untrusted(store, manifest_key(revision), kept.refusal)
    return kept


def incomplete(revision: str) -> ReleaseError:
    return ReleaseError(
        "release_incomplete",
        f"release {short(revision)} is incomplete: its manifest or bundle is missing or damaged",
        "Publish its content again to restore the missing objects.",
    )


def find_shown(store: Store, pointer: Pointer, *, reads_bundle: bool = False) -> Kept | None:
    """
    Return the release that a pointer names; None if it is incomplete or differs from the pointer.
    """
    kept = read_release(store, pointer.revision, reads_bundle=reads_bundle)
    if kept is None or not kept.is_good:
        return None
    if pointer.manifest_sha256 not in ("", digest_of_manifest(kept.data)):
        return None
    sizes = (pointer.manifest_bytes, pointer.head_bytes)
    return kept if sizes == (len(kept.data), kept.head_bytes) else None


def read_pins(store: Store) -> set[str]:
    """
    Return the revisions that are pinned in the bucket.
    """
    names = (found.key.removeprefix(PIN_FOLDER) for found in store.list(PIN_FOLDER))
    return set(filter(is_revision, names))


def read_marks(store: Store) -> dict[str, Listed]:
    """
    Return the marks by revision; an empty one dates a replacement, any other an upcoming use.
    """
    marks = {found.key.removeprefix(LEFT_FOLDER): found for found in store.list(LEFT_FOLDER)}
    return {revision: mark for revision, mark in marks.items() if is_revision(revision)}


def list_releases(store: Store, current: str = "") -> list[CatalogEntry]:
    """
    Return the existing releases, the most recently used first, without their summaries.

    Args:
        current: The current revision, which comes first.
    """
    marks = read_marks(store)
    found = []
    for listed in store.list(MANIFEST_FOLDER):
        name = listed.key.removeprefix(MANIFEST_FOLDER)
        revision = name.removesuffix(MANIFEST_SUFFIX)
        if name != revision and is_revision(revision):
            used_at = max(listed.modified_at, marks.get(revision, listed).modified_at)
            found.append(CatalogEntry(revision, used_at, None))

    def order(entry: CatalogEntry) -> tuple[bool, datetime, str]:
        return entry.revision == current, entry.used_at, entry.revision

    return sorted(found, key=order, reverse=True)


def summarise(store: Store, entries: Iterable[CatalogEntry]) -> list[CatalogEntry]:
    """
    Return releases with the heads of their manifests: one small request each, several at once.

    A signature follows a list of any length; with trusted keys the whole manifest is read.
    """
    head_bytes, parse = FACTS_LIMIT_BYTES, parse_facts
    if store.keys is not None:
        head_bytes, parse = 0, lambda data: parse_head(data)[0]

    def read(entry: CatalogEntry) -> CatalogEntry:
        try:
            stored = store.read(manifest_key(entry.revision), head_bytes=head_bytes)
        except ObjectError as error:
            return replace(entry, unread=error.reason)
        try:
            summary = parse(stored.data) if stored else None
        except Invalid:
            summary = None
        if summary and summary.revision != entry.revision:
            summary = None  # the manifest of another release
        refusal = _signer_of(store, stored.data)[1] if stored and summary else ""
        return CatalogEntry(entry.revision, entry.used_at, summary, refusal)

    readers = ThreadPoolExecutor(READERS)
    try:
        return list(readers.map(read, entries))
    finally:  # a signal must not wait for the other responses
        readers.shutdown(wait=False, cancel_futures=True)


def find_stranger(store: Store) -> str:
    """
    Return a key under the prefix that is not part of any release; empty if there is none.
    """
    ours = (POINTER_KEY, MANIFEST_FOLDER, BUNDLE_FOLDER, PIN_FOLDER, LEFT_FOLDER)
    return next((found.key for found in store.list("") if not found.key.startswith(ours)), "")
