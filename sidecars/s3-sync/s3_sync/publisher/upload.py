"""
Makes a local release the current one: upload → swap the pointer → verify.
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
from s3_sync.publisher.pointer_swap import announce, find_ours, next_turn, swap_pointer
from s3_sync.publisher.progress import Progress, Watched
from s3_sync.publisher.prune import UPLOAD_SECONDS
from s3_sync.publisher.store import ConditionFailed, ConditionUnknown, Store, UploadEnded
from s3_sync.release.facts import Origin
from s3_sync.release.manifest import Head, Manifest
from s3_sync.release.names import bundle_key, manifest_key
from s3_sync.release.pointer import Pointer, Turn
from s3_sync.release.signed import digest_of_manifest
from s3_sync.revision import short

# How often to upload again what a concurrent prune removed during the publish.
TRIES = 3


class Parcel(Protocol):
    """
    A release to upload: its bundle in a file, and its manifest.
    """

    @property
    def revision(self) -> str: ...

    def ready(self) -> tuple[str, Manifest, bytes]:
        """
        Build or download the release if necessary; return the bundle's path, manifest and bytes.
        """


def upload(
    store: Store,
    parcel: Parcel,
    kept: Kept | None,
    before: Current | None,
    origin: Origin,
    progress: Progress,
    promoted_from: str = "",
) -> tuple[Kept, bool]:
    """
    Upload missing objects, swap the pointer, and verify that the release is still complete.

    If it is killed, either the old or the complete new release is current.

    Args:
        kept: The release as it is in the bucket; None if it does not exist.
        before: The pointer when the command began.

    Returns:
        The release as it is in the bucket, and whether the server has conditional writes.

    Raises:
        SidecarError: S3 refuses, the release stays incomplete, or another publisher was faster.
    """
    for _ in range(TRIES):
        kept = _upload_missing(store, parcel, kept, progress)
        if not announce(store, parcel.revision):
            kept = None
            continue
        old = before.trusted if before else None
        turn, history = next_turn(old, parcel.revision, store.now(), promoted_from)
        pointer = pointer_to(store, turn, kept, origin, history)
        pointer, is_guarded = swap_pointer(store, pointer, kept.data, before)
        if find_shown(store, pointer):
            return kept, is_guarded
        before = find_ours(store, pointer, before)
        kept = read_release(store, parcel.revision)
    raise incomplete(parcel.revision)


def _upload_missing(store: Store, parcel: Parcel, kept: Kept | None, progress: Progress) -> Kept:
    """
    Upload the bundle, then the manifest, unless the release is already complete.

    Without a manifest, an existing bundle may be about to be pruned: a small one is always
    uploaded again, a large one unless it is recent.

    Returns:
        The release as it is in the bucket now.

    Raises:
        ReleaseError: Another publisher wrote the same release and did not complete it, or the
            upload was aborted from outside.
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
                f"the bundle upload of {short(parcel.revision)} was aborted from outside",
                "Run the command again. If it recurs, look for a lifecycle rule of the bucket that "
                "aborts unfinished uploads (AbortIncompleteMultipartUpload) too early.",
            ) from None
    signed_by = store.signer.key_id if store.signer else ""
    return put_manifest(store, parcel.revision, Kept(data, "", manifest, True, signed_by), kept)


def _is_up(store: Store, head: Head) -> bool:
    """
    Whether a killed publish has already uploaded this large bundle, recently and completely.
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
    Write a manifest, unless another publisher has just done so.

    Args:
        kept: The manifest that is there, if any; one that was not read is replaced in any case.

    Returns:
        The release as it is in the bucket now.

    Raises:
        ReleaseError: Another publisher wrote the same release and did not complete it.
    """
    key = manifest_key(revision)
    try:
        if kept is None:
            store.put(key, ours.data, if_absent=True)
        else:
            store.put(key, ours.data, if_etag=kept.etag)
    except ConditionUnknown:
        store.put(key, ours.data)
    except ConditionFailed:  # another publish of the same content, or our own lost response
        there = read_release(store, revision)
        if there is None and kept is not None:  # pruned since
            return put_manifest(store, revision, ours, None)
        if there is None or not there.is_good:
            raise incomplete(revision) from None
        return there
    return ours


def pointer_to(
    store: Store, turn: Turn, kept: Kept, origin: Origin, history: tuple[Turn, ...]
) -> Pointer:
    """
    Return a pointer to a release in the bucket.
    """
    digest = digest_of_manifest(kept.data) if store.signer is not None else ""
    return Pointer(turn, len(kept.data), kept.head_bytes, origin, history, digest)
