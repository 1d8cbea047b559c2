"""
The releases in a bucket: which is current, which exist, which are pinned.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from operator import itemgetter
from typing import NamedTuple

from s3_sync.names import is_revision, short, skip_reason_of
from s3_sync.publisher.bucket import Boto3Store
from s3_sync.reasons import ObjectError, S3Error
from s3_sync.release.format import (
    MANIFEST_FOLDER,
    MANIFEST_SUFFIX,
    PIN_FOLDER,
    POINTER_KEY,
    SIGNATURE,
    Invalid,
    Manifest,
    Pointer,
    Turn,
    is_of_release,
    manifest_key,
    parse_manifest,
    read_pointer,
)
from sidecar_runtime.errors import EXIT_SETTINGS, SidecarError

# `prune-releases` removes nothing younger than a day; what becomes current is written
# again before. So a prune and a publish at the same time do not meet, unless a prune is
# suspended between its look at an object and the deletion for as long as a publish
# takes. Then it says so, and publishing again repairs it.
DAY = timedelta(days=1)

# The names of the newest turns.
TURNS = ("current", "previous")
# What names a release, or may be a commit: the digits of an id, or the first ones.
DIGITS = re.compile(r"(?:sha256-)?([0-9a-f]{12,64})")


class ReleaseError(SidecarError):
    """
    The objects in the bucket prevent the command; the current release has not changed.
    """


class InputError(SidecarError):
    """
    The given folder, rule, revision or TMPDIR cannot be used; nothing was written.
    """

    exit_code = EXIT_SETTINGS


class Current(NamedTuple):
    """
    The pointer as it was read.

    Args:
        pointer: None if there is none, or nothing in it may be used.
        etag: None if there is no object at its key; empty if the store does not say it.
        refusal: Why nothing may be used: there is none, or it is refused.
        signed_by: The key that signed it; empty if none had to.
        is_signed: Whether it has a signature, which was verified if there are keys.
    """

    pointer: Pointer | None = None
    etag: str | None = None
    refusal: ReleaseError | None = None
    signed_by: str = ""
    is_signed: bool = False

    @property
    def turns(self) -> tuple[Turn, ...]:
        """
        Its own turn and those before, newest first.
        """
        return self.pointer.turns() if self.pointer else ()

    @property
    def names(self) -> dict[str, str]:
        """
        The revisions that have a name: ``current`` and ``previous``, as far as there
        are any.
        """
        return {
            name: turn.revision for name, turn in zip(TURNS, self.turns, strict=False)
        }

    @property
    def news(self) -> str:
        """
        Who made which release current, and when.
        """
        if self.pointer is None:
            return "current.json was changed or deleted"
        by = self.pointer.origin.get("by", "someone else")
        turn = self.pointer.turn
        said = f"{by} made release {short(turn.revision)} current, at {turn.since}"
        return f"{said}, signed by {self.signed_by}" if self.signed_by else said


def read_current(store: Boto3Store, *, forces: bool = False) -> Current:
    """
    Return the pointer.

    Args:
        forces: Whether to accept an object that is not a pointer or not trusted, to
            replace it.

    Raises:
        ReleaseError: It is not a pointer, or not trusted.
    """
    stored = store.read(POINTER_KEY)
    if stored is None:
        return Current(
            refusal=ReleaseError(
                "release_missing",
                f"{store.url}current.json does not exist, so no release is current there",
                "Correct the bucket or the prefix, or publish first. If the object was deleted, "
                "`rollback REVISION` writes it again.",
            )
        )
    try:
        found = read_pointer(stored.data, store.keys, store.bucket, store.prefix)
        return Current(
            found[0],
            stored.etag,
            signed_by=found[1],
            is_signed=SIGNATURE.search(stored.data) is not None,
        )
    except Invalid as error:
        refusal = ReleaseError(
            error.reason,
            f"{store.url}current.json is refused: {error}",
            "It was not changed. Find out who writes there, use another prefix, or add the missing "
            "public key. To replace it: publish or promote with --force, or `rollback REVISION "
            "--force`.",
        )
    if not forces:
        raise refusal
    return Current(None, stored.etag, refusal)


def read_existing(store: Boto3Store) -> Current:
    """
    Return the pointer of a prefix that must have releases.

    Raises:
        ReleaseError: It has no pointer, or one that is refused: perhaps it is no prefix
            of releases, so nothing in it may be used or removed.
    """
    found = read_current(store)
    if found.refusal:
        raise found.refusal
    return found


def require_own_prefix(store: Boto3Store) -> None:
    """
    Refuse to begin releases among other objects: pods that read those as files would
    not see a release, and more likely the prefix is mistyped.

    Raises:
        S3Error: ``prefix_taken``; it names one of the objects.
    """
    for found in store.list(""):
        is_folder = f"/{found.key}".endswith("/")  # a marker, also of the prefix itself
        if not (is_folder or is_of_release(found.key) or skip_reason_of(found.key, 0)):
            raise S3Error(
                "prefix_taken",
                f"{store.url} has objects that belong to no release: {found.key!r:.300}",
            )


def resolve(store: Boto3Store, text: str) -> str:
    """
    Return the revision for ``current``, ``previous``, a full id, with or without
    `sha256-`, or its first digits.

    Raises:
        InputError: None matches, or more than one.
        ReleaseError: There is no such turn, or the pointer is refused.
    """
    if text in TURNS:
        revision = read_existing(store).names.get(text)
        if revision:
            return revision
        raise ReleaseError(
            "history_empty",
            f"{store.url} has no {text} release",
            "Pass a revision; `s3-sync releases` lists the existing ones.",
        )
    found = {}
    beginning = DIGITS.fullmatch(text)
    if beginning:
        revision = f"sha256-{beginning[1]}"
        if is_revision(revision):
            return revision
        found = list_releases(store, f"{MANIFEST_FOLDER}{revision}")
    if len(found) != 1:
        raise InputError(
            "release_unknown",
            f"{text!r} names {len(found) or 'no'} releases in {store.url}",
            "A revision is sha256- and 64 hexadecimal digits; the first 12 digits suffice if they "
            "are unique. `s3-sync releases` lists the revisions; old ones may have been pruned.",
        )
    return min(found)


def read_manifest(store: Boto3Store, revision: str) -> tuple[Manifest, bytes]:
    """
    Return the manifest of a release, and its bytes.

    Raises:
        InputError: It does not exist.
        ReleaseError: It is damaged.
    """
    stored = store.read(manifest_key(revision))
    if stored is None:
        raise InputError(
            "release_unknown",
            f"{store.url}releases/ has no {revision}",
            "It may have been pruned: publish it again.",
        )
    try:
        return parse_manifest(stored.data, revision), stored.data
    except Invalid as error:
        raise damaged(store, revision, f"its manifest is invalid: {error}") from None


def damaged(store: Boto3Store, revision: str, why: str) -> ReleaseError:
    return ReleaseError(
        "release_damaged",
        f"release {short(revision)} in {store.url} is damaged: {why}",
        "Publish its content again, which writes all of it again.",
    )


def list_releases(
    store: Boto3Store, beginning: str = MANIFEST_FOLDER
) -> dict[str, datetime]:
    """
    Return the existing releases, the most recently used first, and when each was last
    published or replaced, by S3's clock.

    Args:
        beginning: Of the keys of objects whose names are revisions.
    """
    found = {
        listed.key.partition("/")[2].removesuffix(MANIFEST_SUFFIX): listed.modified_at
        for listed in store.list(beginning)
        if is_of_release(listed.key)
    }
    return dict(sorted(found.items(), key=itemgetter(1), reverse=True))


def find_manifest(store: Boto3Store, revision: str) -> Manifest | None:
    """
    Return the manifest of a release; None if it is missing or cannot be used.
    """
    try:
        return read_manifest(store, revision)[0]
    except (ObjectError, ReleaseError, InputError):
        return None


def read_pins(store: Boto3Store) -> set[str]:
    """
    Return the revisions that are pinned in the bucket.
    """
    return {*list_releases(store, PIN_FOLDER)}
