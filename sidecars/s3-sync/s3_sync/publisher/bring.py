"""
From a release that is here to one that is current: upload → swing → verify.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Protocol

from s3_sync.publisher.catalog import (
    Current,
    Kept,
    incomplete,
    is_shown,
    read_current,
    read_release,
)
from s3_sync.publisher.progress import Progress, Watched
from s3_sync.publisher.store import ConditionFailed, ConditionUnknown, Store
from s3_sync.publisher.swap import check_ours, has_conditions, swap_pointer
from s3_sync.release.facts import Origin
from s3_sync.release.manifest import Manifest
from s3_sync.release.names import bundle_key, manifest_key
from s3_sync.release.pointer import Pointer, Turn

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
    base = before
    old = before.pointer if before else None
    for _ in range(TRIES):
        kept = _upload(store, parcel, kept, progress)
        pointer = _next(old, parcel.revision, kept, origin)
        is_guarded = has_conditions(store, parcel.revision, kept.data, base)
        swap_pointer(store, pointer, base, is_guarded=is_guarded)
        if is_shown(store, pointer):
            return kept, is_guarded
        base = read_current(store)
        check_ours(base, pointer)
        kept = read_release(store, parcel.revision)
    raise incomplete(parcel.revision)


def _upload(store: Store, parcel: Parcel, kept: Kept | None, progress: Progress) -> Kept:
    """
    Put bundle and then manifest in their place, unless the release is whole already.

    A bundle without a manifest is written again: the one that is there may be pruned just now.

    Returns:
        The release as it is in the bucket now.

    Raises:
        ReleaseError: Another publisher writes the same release, and does not complete it.
    """
    if kept is not None and kept.is_whole:
        return kept
    path, manifest, data = parcel.ready()
    tell = progress.bytes_counter("Uploading", manifest.head.bundle_bytes)
    with Watched(path, tell) as bundle:
        store.put(bundle_key(manifest.head.bundle_sha256), bundle)
    key = manifest_key(parcel.revision)
    try:
        if kept is None:
            store.put(key, data, if_absent=True)
        else:
            store.put(key, data, if_etag=kept.etag)
    except ConditionUnknown:
        store.put(key, data)
    except ConditionFailed:  # another publish of the same content, or our own lost answer
        there = read_release(store, parcel.revision)
        if there is None or not there.is_whole:
            raise incomplete(parcel.revision) from None
        return there
    return Kept(data, "", manifest, True)


def _next(old: Pointer | None, revision: str, kept: Kept, origin: Origin) -> Pointer:
    """
    Return the new pointer; where it repairs what is current, its history stays as it was.
    """
    turn = Turn(revision, 1, datetime.now(UTC))
    history: tuple[Turn, ...] = ()
    if old is not None:
        is_repair = old.revision == revision
        turn = replace(
            turn, sequence=old.turn.sequence + 1, restores=old.turn.restores if is_repair else 0
        )
        history = old.history if is_repair else old.turns()
    return Pointer(turn, len(kept.data), kept.head_bytes, origin, history)
