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


def swap_pointer(
    store: Store, pointer: Pointer, before: Current | None, *, is_guarded: bool
) -> None:
    """
    Make a release current, in place of what was current when we began.

    Killed at any moment, either the old or the new one is current.

    Args:
        before: What was read at the beginning; None for the first release.
        is_guarded: Whether the server has conditional writes: :func:`has_conditions`.

    Raises:
        ReleaseError: ``publish_conflict``: another publisher made another release current.
    """
    _warn(store, before)
    data = serialize_pointer(pointer)
    if store.signer is not None:
        data = sign_pointer(data, store.bucket, store.prefix, store.signer)
    old = before.pointer if before else None
    trusted = before.trusted if before else None
    above = trusted.turn.sequence if trusted else 0
    if old is not None and old.revision != pointer.revision:
        # Before it is left: killed in between, it merely counts as used a moment longer.
        store.put(left_key(old.revision), b"")
    if not is_guarded:
        _check_unchanged(read_pointer(store), before)
        store.put(POINTER_KEY, data)
        check_ours(read_pointer(store), pointer, above)
        return
    try:
        store.put(
            POINTER_KEY,
            data,
            if_absent=before is None,
            if_etag=before.etag if before else "",
        )
    except ConditionFailed:
        # The answer to our own write may have been lost.
        check_ours(read_pointer(store), pointer, above)


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


def has_conditions(store: Store, revision: str, manifest: bytes, before: Current | None) -> bool:
    """
    Whether the server obeys the condition that :func:`swing` relies on.

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


def _check_unchanged(now: Current | None, before: Current | None) -> None:
    if now is not None and (before is None or now.data != before.data):
        raise _conflict(now)
    if now is None and before is not None:
        raise _conflict(now)


def check_ours(now: Current | None, pointer: Pointer, above: int) -> None:
    """
    Two who publish the same have both published it, if both sign or neither has to.

    Args:
        above: The sequence of the pointer that was replaced: what is not above it is an old one.

    Raises:
        ReleaseError: ``publish_conflict``: another one is current.
    """
    there = now.trusted if now else None
    if there is None or there.revision != pointer.revision or there.turn.sequence <= above:
        raise _conflict(now)


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
