"""
The one step that makes a release current: the pointer is replaced, by nobody but us meanwhile.
"""

from __future__ import annotations

from s3_sync.publisher.catalog import Current, ReleaseError, read_pointer
from s3_sync.publisher.store import ConditionFailed, ConditionUnknown, Store
from s3_sync.release.names import POINTER_KEY, left_key, manifest_key
from s3_sync.release.pointer import Pointer, serialize_pointer, split_pointer
from s3_sync.release.signed import sign_pointer
from s3_sync.revision import short
from sidecar_runtime.logs import get_logger

# No object has this ETag: it is the MD5 of nothing that anybody writes.
NO_ETAG = '"00000000000000000000000000000000"'

log = get_logger("publisher")


def swap_pointer(store: Store, pointer: Pointer, manifest: bytes, before: Current | None) -> bool:
    """
    Make a release current, in place of what was current when we began.

    Killed at any moment, either the old or the new one is current.

    Args:
        manifest: Of the release, as it is in the bucket.
        before: What was read at the beginning; None for the first release.

    Returns:
        Whether the server has conditional writes.

    Raises:
        ReleaseError: ``publish_conflict``: another publisher made another release current.
    """
    is_guarded = _has_conditions(store, pointer.revision, manifest, before)
    _warn(store, before)
    data = serialize_pointer(pointer)
    if store.signer is not None:
        data = sign_pointer(data, store.bucket, store.prefix, store.signer)
    old = before.pointer if before else None
    if old is not None and old.revision != pointer.revision:
        # Before it is left: killed in between, it merely counts as used a moment longer.
        store.put(left_key(old.revision), b"")
    if is_guarded:
        try:
            store.put(
                POINTER_KEY,
                data,
                if_absent=before is None,
                if_etag=before.etag if before else "",
            )
        except ConditionFailed:
            # The answer to our own write may have been lost.
            find_ours(store, pointer, before)
    else:
        now = read_pointer(store)
        if (now and now.data) != (before and before.data):
            raise _conflict(now)
        store.put(POINTER_KEY, data)
        find_ours(store, pointer, before)
    return is_guarded


def find_ours(store: Store, pointer: Pointer, before: Current | None) -> Current:
    """
    Return what is current, if it is what we have made current, whoever wrote it: two who publish
    the same have both published it, if both sign or neither has to.

    Args:
        before: What was replaced: what is not above it is an old pointer.

    Raises:
        ReleaseError: ``publish_conflict``: another one is current.
    """
    now, old = read_pointer(store), before.trusted if before else None
    there = now.trusted if now else None
    above = old.turn.sequence if old else 0
    if there is None or there.revision != pointer.revision or there.turn.sequence <= above:
        raise _conflict(now)
    assert now is not None
    return now


def _warn(store: Store, before: Current | None) -> None:
    """
    Say what is wrong with the pointer that is replaced, and with replacing it.
    """
    if before is None:
        return
    if before.replayed:
        log.warning(
            "release_replayed",
            error=before.replayed,
            advice="It is replaced, and its history goes on, which lacks what came after it: name "
            f"the revision when you roll back. Find out who wrote {store.url}{POINTER_KEY}.",
        )
    if before.refusal:
        log.warning(
            "pointer_untrusted",
            error=before.refusal,
            advice="It is replaced, and its history is left behind. Unless this is the first "
            f"release that is signed, find out who wrote {store.url}{POINTER_KEY}.",
        )
    elif store.signer is None and split_pointer(before.data)[1]:
        log.warning(
            "signature_dropped",
            advice="The pointer before was signed, and this one is not: pods with "
            "S3_SYNC_TRUSTED_KEYS refuse it. Run the command again with --sign-key.",
        )


def _has_conditions(store: Store, revision: str, manifest: bytes, before: Current | None) -> bool:
    """
    Whether the server obeys the condition that the swap relies on.

    Found out by a write that must be refused, and that changes nothing where it is not: of a
    manifest that is there, as it is. `rclone serve s3`, for one, ignores conditions (2026-11).
    """
    try:
        store.put(
            manifest_key(revision),
            manifest,
            if_absent=before is None,
            if_etag=NO_ETAG if before else "",
        )
    except ConditionFailed:
        return True
    except ConditionUnknown:
        return False
    return False


def _conflict(now: Current | None) -> ReleaseError:
    if now is None:
        said = "the pointer was deleted meanwhile"
    elif now.pointer is None:
        said = "the pointer was overwritten meanwhile by something that is not one"
    else:
        origin = now.pointer.origin
        said = (
            f"{origin.by or 'someone else'} made release {short(now.pointer.revision)} current "
            f"meanwhile, at {now.pointer.turn.since:%Y-%m-%d %H:%M:%S} UTC"
        )
    return ReleaseError(
        "publish_conflict",
        f"{said}; nothing of ours became current",
        "Look at `s3-sync releases`, and publish again if yours is the newer one. "
        "Let CI run one publish at a time.",
    )
