"""
The one step that makes a release current: replace the pointer unless another publisher has.
"""

from __future__ import annotations

from datetime import datetime

from s3_sync.publisher.catalog import Current, ReleaseError, read_marks, read_pointer
from s3_sync.publisher.store import ConditionFailed, ConditionUnknown, Store
from s3_sync.release.names import POINTER_KEY, left_key, manifest_key
from s3_sync.release.pointer import (
    SEQUENCE_LIMIT,
    Pointer,
    Turn,
    serialize_pointer,
    split_pointer,
)
from s3_sync.release.signed import sign_pointer
from s3_sync.revision import short
from sidecar_runtime.logs import get_logger

# No object has this ETag: no known content has this MD5.
NO_ETAG = '"00000000000000000000000000000000"'
# The content of a mark for a release about to become current; a replaced release has an empty one.
COMING = b"coming\n"
# How often to rewrite a pointer whose time is too far from the time S3 gave the object.
DATE_TRIES = 2

log = get_logger("publisher")


def announce(store: Store, revision: str) -> bool:
    """
    Mark a release as about to become current; return whether it still exists.

    A concurrent prune reads the marks after it has deleted manifests. A deletion before this mark
    is seen here; a manifest deleted after it, the prune restores.
    """
    store.put(left_key(revision), COMING)
    return store.look(manifest_key(revision)) is not None


def next_turn(
    old: Pointer | None, revision: str, now: datetime, promoted_from: str = ""
) -> tuple[Turn, tuple[Turn, ...]]:
    """
    Return the new turn and its history; a repair of the current release keeps the history.

    Its sequence is the time in seconds, or the previous sequence plus one if that is higher: more
    than any that pods remember, even if an old pointer was restored or the pointer is missing,
    unless the last publish was in the same second.

    Args:
        old: The previous pointer, if its history can be continued.
        now: The time by the clock of S3, which all publishers share.

    Raises:
        ReleaseError: No higher sequence exists.
    """
    sequence = max(int(now.timestamp()), old.turn.sequence + 1 if old else 1)
    if sequence > SEQUENCE_LIMIT:
        raise ReleaseError(
            "pointer_invalid",
            f"{POINTER_KEY} has the highest possible sequence, {SEQUENCE_LIMIT}",
            f"s3-sync does not write it: find out who did, delete {POINTER_KEY}, and publish.",
        )
    turn = Turn(revision, sequence, now, promoted_from=promoted_from)
    if old is not None and old.revision == revision:
        restores, promoted_from = old.turn.restores, promoted_from or old.turn.promoted_from
        return turn._replace(restores=restores, promoted_from=promoted_from), old.history
    return turn, old.turns() if old else ()


def swap_pointer(
    store: Store, pointer: Pointer, manifest: bytes, before: Current | None
) -> tuple[Pointer, bool]:
    """
    Make a release current, unless the pointer has changed since the command began.

    If it is killed at any moment, either the old or the new release is current.

    Args:
        manifest: The manifest of the release, as it is in the bucket.
        before: The pointer as it was read at the beginning; None for the first release.

    Returns:
        The pointer as it was written, and whether the server has conditional writes.

    Raises:
        ReleaseError: ``publish_conflict``: another publisher made another release current.
    """
    is_guarded = _has_conditions(store, pointer.revision, manifest, before)
    _warn(store, before, pointer)
    # Before the swap: after a kill in between, the release merely counts as used a bit longer.
    for revision in _left(store, before) - {pointer.revision}:
        store.put(left_key(revision), b"")
    _write(store, pointer, before, is_guarded=is_guarded)
    for _ in range(DATE_TRIES):
        # Without conditional writes, another publisher may overwrite ours unseen: check again.
        now = read_pointer(store) if is_guarded else find_ours(store, pointer, before)
        is_ours = now and now.pointer and now.pointer.turn.sequence == pointer.turn.sequence
        if not (now and now.modified_at and now.replayed and is_ours):
            break
        # It would look like a restored pointer: the write took too long, or responses and objects
        # are dated by two clocks. Write it again with the date of the object.
        before = now
        turn, history = next_turn(pointer, pointer.revision, now.modified_at)
        pointer = pointer._replace(turn=turn, history=history)
        _write(store, pointer, before, is_guarded=is_guarded)
    return pointer, is_guarded


def _left(store: Store, before: Current | None) -> set[str]:
    """
    Return the releases that may have been current until now. If the pointer was lost or restored,
    only the marks know: that of the current release announces it, as do those of killed publishes.
    """
    old = before.pointer if before else None
    left = {old.revision} if old else set()
    if before is None or before.trusted is None or before.replayed:
        left |= {name for name, mark in read_marks(store).items() if mark.size_bytes}
    return left


def _write(store: Store, pointer: Pointer, before: Current | None, *, is_guarded: bool) -> None:
    data = serialize_pointer(pointer)
    if store.signer is not None:
        data = sign_pointer(data, store.bucket, store.prefix, store.signer)
    if not is_guarded:
        now = read_pointer(store)
        if (now and now.data) != (before and before.data):
            raise _conflict(now, pointer)
        store.put(POINTER_KEY, data)
        find_ours(store, pointer, before)
        return
    etag = before.etag if before else ""
    try:
        store.put(POINTER_KEY, data, if_absent=before is None, if_etag=etag)
    except ConditionFailed:  # perhaps our own write, whose response was lost
        find_ours(store, pointer, before)


def find_ours(store: Store, pointer: Pointer, before: Current | None) -> Current:
    """
    Return the current pointer if it names our release, whoever wrote it: two publishers of the
    same release both succeed, if both sign or no signature is required.

    Args:
        before: The replaced pointer; a sequence that is not higher belongs to an old one.

    Raises:
        ReleaseError: ``publish_conflict``: another release is current.
    """
    now, old = read_pointer(store), before.trusted if before else None
    there = now.trusted if now else None
    above = old.turn.sequence if old else 0
    if there is None or there.revision != pointer.revision or there.turn.sequence <= above:
        raise _conflict(now, pointer)
    assert now is not None
    return now


def _warn(store: Store, before: Current | None, ours: Pointer) -> None:
    """
    Warn about a replaced pointer that was restored or untrusted, and about a dropped signature.
    """
    if before is None:
        return
    if before.replayed:
        log.warning(
            "release_replayed",
            error=before.replayed,
            advice="It is replaced, but its history lacks the releases that came after it: pass "
            f"the revision when you roll back. Find out who wrote {store.url}{POINTER_KEY}.",
        )
    if before.refusal:
        log.warning(
            "pointer_untrusted",
            error=before.refusal,
            advice="It is replaced, and its history is dropped. Unless this is the first signed "
            f"release, find out who wrote {store.url}{POINTER_KEY}.",
        )
    elif store.signer is None and split_pointer(before.data)[1]:
        log.warning(
            "signature_dropped",
            advice="The previous pointer was signed, the new one is not: pods with "
            "S3_SYNC_TRUSTED_KEYS refuse it. Publish or promote again with --sign-key; after a "
            f"rollback, run `s3-sync rollback {short(ours.revision)} --sign-key FILE`.",
        )


def _has_conditions(store: Store, revision: str, manifest: bytes, before: Current | None) -> bool:
    """
    Whether the server obeys the condition that the swap relies on.

    The test is a write that the server must refuse, and that changes nothing if it does not: an
    existing manifest, unchanged. `rclone serve s3`, for one, ignores conditions (2026-11).
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


def _conflict(now: Current | None, ours: Pointer) -> ReleaseError:
    if now is None:
        said = "was deleted"
    elif now.pointer is None:
        said = "was overwritten by something that is not a pointer"
    elif now.refusal:
        said = f"was replaced by a pointer that is not trusted ({now.refusal})"
    elif now.pointer.revision == ours.revision:
        said = "was replaced by an older pointer to the same release"
    else:
        by, turn = now.pointer.origin.by or "someone else", now.pointer.turn
        said = (
            f"was replaced: {by} made release {short(turn.revision)} current at "
            f"{turn.since:%Y-%m-%d %H:%M:%S} UTC"
        )
    return ReleaseError(
        "publish_conflict",
        f"meanwhile {POINTER_KEY} {said}; release {short(ours.revision)} of this command is not "
        "current",
        "Check `s3-sync releases`; if your release should be current, run the command again. Let "
        "CI run one publish at a time.",
    )
