"""
From a release that is here to one that is current: upload → swing → verify.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Protocol

from s3_sync.publisher.catalog import (
    Current,
    Kept,
    ReleaseError,
    find_shown,
    incomplete,
    read_release,
)
from s3_sync.publisher.progress import Progress, Watched
from s3_sync.publisher.prune import UPLOAD_SECONDS
from s3_sync.publisher.store import ConditionFailed, ConditionUnknown, Store, UploadEnded
from s3_sync.publisher.swap import announce, find_ours, next_turn, swap_pointer
from s3_sync.release.facts import Origin
from s3_sync.release.manifest import Head, Manifest
from s3_sync.release.names import bundle_key, manifest_key
from s3_sync.release.pointer import Pointer, Turn
from s3_sync.release.signed import digest_of_manifest
from s3_sync.revision import short

# A release whose objects vanish while it is published, by a prune beside us, is put back.
TRIES = 3


class Parcel(Protocol):
    """
    A release on its way: its bundle in a file, its manifest as it will be.
    """

    @property
    def revision(self) -> str: ...

    def ready(self) -> tuple[str, Manifest, bytes]:
        """
        Return where the bundle is, and the manifest with its bytes; make or fetch what is not here.
        """


def bring(
    store: Store,
    parcel: Parcel,
    kept: Kept | None,
    before: Current | None,
    origin: Origin,
    progress: Progress,
) -> tuple[Kept, bool]:
    """
    Upload what is not there, swing the pointer, and see that all it names is there.

    Killed anywhere, what was current stays current, or all of the new release is.

    Args:
        kept: The release as it is in the bucket; None where it is not.
        before: What was current when we began.

    Returns:
        The release as it is in the bucket, and whether the server has conditional writes.

    Raises:
        SidecarError: It cannot be, or another publisher was faster.
    """
    for _ in range(TRIES):
        kept = _upload(store, parcel, kept, progress)
        if not announce(store, parcel.revision):
            kept = None
            continue
        old = before.trusted if before else None
        turn, history = next_turn(old, parcel.revision, store.now())
        pointer = pointer_to(store, turn, kept, origin, history)
        pointer, is_guarded = swap_pointer(store, pointer, kept.data, before)
        if find_shown(store, pointer):
            return kept, is_guarded
        before = find_ours(store, pointer, before)
        kept = read_release(store, parcel.revision)
    raise incomplete(parcel.revision)


def _upload(store: Store, parcel: Parcel, kept: Kept | None, progress: Progress) -> Kept:
    """
    Put bundle and then manifest in their place, unless the release is whole already.

    A small bundle without a manifest is written again, and a large one that is not of today: the
    one that is there may be pruned just now.

    Returns:
        The release as it is in the bucket now.

    Raises:
        ReleaseError: Another publisher writes the same release, and does not complete it; or others
            have ended the upload.
    """
    if kept is not None and kept.is_good:
        return kept
    path, manifest, data = parcel.ready()
    if not _is_up(store, manifest.head):
        tell = progress.bytes_counter("Uploading", manifest.head.bundle_bytes)
        try:
            with Watched(path, tell) as bundle:
                store.upload(bundle_key(manifest.head.bundle_sha256), bundle)
        except UploadEnded:
            raise ReleaseError(
                "release_incomplete",
                f"the upload of the bundle of {short(parcel.revision)} was ended by others",
                "Run it again. If it happens again, look for a lifecycle rule of the bucket that "
                "ends unfinished uploads (AbortIncompleteMultipartUpload) after too short a time.",
            ) from None
    signed_by = store.signer.key_id if store.signer else ""
    return put_manifest(store, parcel.revision, Kept(data, "", manifest, True, signed_by), kept)


def _is_up(store: Store, head: Head) -> bool:
    """
    Whether a large bundle is there already, whole: of a publish that was killed after it.
    """
    if head.bundle_bytes <= store.part_bytes:
        return False
    key = bundle_key(head.bundle_sha256)
    there = store.look(key)
    if there is None or there.size_bytes != head.bundle_bytes:
        return False
    is_safe = store.now() - there.modified_at < timedelta(seconds=UPLOAD_SECONDS / 2)
    return is_safe and store.sha256_of(key) == head.bundle_sha256


def put_manifest(store: Store, revision: str, ours: Kept, kept: Kept | None) -> Kept:
    """
    Put a manifest in its place, unless another publisher has just done so.

    Args:
        kept: What was read there.

    Returns:
        What is there now.

    Raises:
        ReleaseError: Another publisher writes the same release, and does not complete it.
    """
    key = manifest_key(revision)
    try:
        if kept is None:
            store.put(key, ours.data, if_absent=True)
        else:
            store.put(key, ours.data, if_etag=kept.etag)
    except ConditionUnknown:
        store.put(key, ours.data)
    except ConditionFailed:  # another publish of the same content, or our own lost answer
        there = read_release(store, revision)
        if there is None or not there.is_good:
            raise incomplete(revision) from None
        return there
    return ours


def pointer_to(
    store: Store, turn: Turn, kept: Kept, origin: Origin, history: tuple[Turn, ...]
) -> Pointer:
    """
    Return the pointer to a release as it is in the bucket.
    """
    digest = digest_of_manifest(kept.data) if store.signer is not None else ""
    return Pointer(turn, len(kept.data), kept.head_bytes, origin, history, digest)
