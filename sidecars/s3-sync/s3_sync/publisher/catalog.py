"""
The releases in a bucket: which is current, which exist, which are pinned.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import NamedTuple

from s3_sync.digest import BEGINNING, SHORT_DIGITS, is_revision, short
from s3_sync.publisher.store import Store, Stored
from s3_sync.release import format as form
from s3_sync.s3.refusals import ObjectError
from s3_sync.signature import Keys, Signer, Untrusted, split_signature
from sidecar_runtime.errors import EXIT_SETTINGS, SidecarError

READERS = 8
# `prune-releases` removes nothing younger than a day; what is older than half of it is written
# again before it is used. So a prune and a publish at the same time do not meet.
DAY = timedelta(days=1)

_BEGINNING = re.compile(rf"(?:{BEGINNING})?([0-9a-f]{{{SHORT_DIGITS},64}})")


class ReleaseError(SidecarError):
    """
    The objects in the bucket prevent the command; the current release has not changed.
    """


class RevisionError(SidecarError):
    """
    The given revision matches no release.
    """

    exit_code = EXIT_SETTINGS


class Trust(NamedTuple):
    """
    The keys that a command trusts and signs with; without keys everything is trusted.
    """

    keys: Keys | None = None
    signer: Signer | None = None


class Current(NamedTuple):
    """
    The pointer as it was read.

    Args:
        pointer: None if nothing in it may be used.
        refusal: Why not; empty if it may.
        signed_by: The key that signed it; empty if none had to.
    """

    pointer: form.Pointer | None
    stored: Stored
    refusal: str = ""
    signed_by: str = ""

    def is_ours(self, trust: Trust) -> bool:
        """
        Whether it is signed as this command would sign it.
        """
        return self.signed_by == (trust.signer.key_id if trust.signer else "") or not trust.signer


class CatalogEntry(NamedTuple):
    """
    A release in the bucket.

    Args:
        used_at: When it was last published or replaced, to within half a day, by S3's clock.
        manifest: None if it is missing or cannot be used.
        problem: The reason why; empty if it can.
    """

    revision: str
    used_at: datetime
    manifest: form.Manifest | None = None
    problem: str = ""


def look_at_pointer(store: Store, trust: Trust) -> Current | None:
    """
    Return the object at the pointer's key, whatever it contains; None if it does not exist.
    """
    stored = store.read(form.POINTER_KEY)
    if stored is None:
        return None
    body, signature = split_signature(stored.data)
    try:
        keys = trust.keys
        signer = keys.signer_of(body, store.bucket, store.prefix, signature) if keys else ""
        return Current(form.parse_pointer(body), stored, "", signer)
    except Untrusted as error:
        return Current(None, stored, str(error))
    except form.Invalid as error:
        return Current(None, stored, f"it is not a pointer to releases: {error}")


def read_current(store: Store, trust: Trust, *, forces: bool = False) -> Current | None:
    """
    Return the pointer; None if nothing has been published yet.

    Args:
        forces: Whether to accept an object that is not a pointer or not trusted, to replace it.

    Raises:
        ReleaseError: It is not a pointer, or not trusted.
    """
    current = look_at_pointer(store, trust)
    if current is not None and current.refusal and not forces:
        raise ReleaseError(
            "release_untrusted" if "sign" in current.refusal else "pointer_invalid",
            f"{store.url}{form.POINTER_KEY} is refused: {current.refusal}",
            "It was not changed. Find out who writes there, use another prefix, or add the missing "
            "public key. To replace it: publish or promote with --force, or `rollback REVISION "
            "--force`.",
        )
    return current


def turn_of(store: Store, current: Current | None, what: str) -> form.Turn:
    """
    Return the ``current`` or the ``previous`` turn.

    Raises:
        ReleaseError: There is none.
    """
    pointer = current.pointer if current else None
    turn = pointer and (pointer.turn if what == "current" else pointer.previous)
    if turn:
        return turn
    raise ReleaseError(
        "history_empty",
        f"{store.url} has no {what} release",
        "Pass a revision; `s3-sync releases` lists the existing ones.",
    )


def resolve(store: Store, text: str, folder: str = form.MANIFEST_FOLDER) -> str:
    """
    Return the revision for a full id, with or without `sha256-`, or its first digits.

    Args:
        folder: The folder of the objects whose names are revisions.

    Raises:
        RevisionError: None matches, or more than one.
    """
    beginning = _BEGINNING.fullmatch(text)
    if beginning is None:
        raise RevisionError(
            "release_unknown",
            f"{text!r} is not a revision",
            f"A revision is {BEGINNING} and 64 hexadecimal digits; the first {SHORT_DIGITS} digits "
            "suffice if they are unique. `s3-sync releases` lists the revisions.",
        )
    revision = f"{BEGINNING}{beginning[1]}"
    if is_revision(revision):
        return revision
    keys = [found.key for found in store.list(f"{folder}{revision}")]
    names = [key.removeprefix(folder).removesuffix(form.MANIFEST_SUFFIX) for key in keys]
    match [name for name in names if is_revision(name)]:
        case [found]:
            return found
        case []:
            raise unknown(store, text, "pinned release" if folder == form.PIN_FOLDER else "release")
        case found:
            raise RevisionError(
                "release_unknown",
                f"{len(found)} releases in {store.url} begin with {text}",
                "Pass more digits: `s3-sync releases --output json` shows full revisions.",
            )


def unknown(store: Store, text: str, what: str = "release") -> RevisionError:
    return RevisionError(
        "release_unknown",
        f"{store.url} has no {what} {short(text)}",
        "`s3-sync releases` lists the existing releases; old ones may have been pruned.",
    )


def read_manifest(store: Store, revision: str) -> tuple[form.Manifest, Stored]:
    """
    Return the manifest of a release.

    Raises:
        RevisionError: It does not exist.
        ReleaseError: It is damaged.
    """
    stored = store.read(form.manifest_key(revision))
    if stored is None:
        raise unknown(store, revision)
    try:
        return form.parse_manifest(stored.data, revision), stored
    except form.Invalid as error:
        raise damaged(
            store, revision, f"{form.manifest_key(revision)} is invalid: {error}"
        ) from None


def damaged(store: Store, revision: str, why: str) -> ReleaseError:
    return ReleaseError(
        "release_damaged",
        f"release {short(revision)} in {store.url} is damaged: {why}",
        "Publish its content again with --force, which writes all of it again.",
    )


def find_manifest(store: Store, revision: str) -> form.Manifest | None:
    """
    Return the manifest of a release; None if it is missing, damaged, or cannot be read.
    """
    return _read(store, CatalogEntry(revision, store.now())).manifest


def list_releases(store: Store) -> list[CatalogEntry]:
    """
    Return the existing releases, the most recently used first, without their manifests.
    """
    found = []
    for listed in store.list(form.MANIFEST_FOLDER):
        name = listed.key.removeprefix(form.MANIFEST_FOLDER)
        revision = name.removesuffix(form.MANIFEST_SUFFIX)
        if name != revision and is_revision(revision):
            found.append(CatalogEntry(revision, listed.modified_at))
    return sorted(found, key=lambda entry: (entry.used_at, entry.revision), reverse=True)


def read_manifests(store: Store, entries: Iterable[CatalogEntry]) -> list[CatalogEntry]:
    """
    Return releases with their manifests, several read at once.
    """
    readers = ThreadPoolExecutor(READERS)
    try:
        return list(readers.map(lambda entry: _read(store, entry), entries))
    finally:  # a signal must not wait for the other responses
        readers.shutdown(wait=False, cancel_futures=True)


def _read(store: Store, entry: CatalogEntry) -> CatalogEntry:
    try:
        manifest, _ = read_manifest(store, entry.revision)
    except ObjectError as error:
        return entry._replace(problem=error.reason)
    except (ReleaseError, RevisionError):
        return entry._replace(problem="damaged")
    return entry._replace(manifest=manifest)


def read_pins(store: Store) -> set[str]:
    """
    Return the revisions that are pinned in the bucket.
    """
    names = (found.key.removeprefix(form.PIN_FOLDER) for found in store.list(form.PIN_FOLDER))
    return set(filter(is_revision, names))
