"""
The one step that makes a release current: the pointer is replaced, by nobody but us meanwhile.
"""

from __future__ import annotations

from datetime import datetime

from s3_sync.publisher.catalog import Current, ReleaseError, read_pointer
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

# No object has this ETag: it is the MD5 of nothing that anybody writes.
NO_ETAG = '"00000000000000000000000000000000"'
# What the mark of a release has that is about to be in use; of one that was left it is empty.
COMING = b"coming\n"
# How often a pointer is written again that does not say when it was written.
DATE_TRIES = 2

log = get_logger("publisher")


def announce(store: Store, revision: str) -> bool:
    """
    Say that a release is about to be in use, and return whether it is there.

    A prune beside us reads the marks after it has deleted manifests: what it deleted before ours
    is seen to be missing here, and what it deletes after it, it puts back.
    """
    store.put(left_key(revision), COMING)
    return store.look(manifest_key(revision)) is not None


def next_turn(old: Pointer | None, revision: str, now: datetime) -> tuple[Turn, tuple[Turn, ...]]:
    """
    Return the new turn and its history, which stays as it was where it repairs what is current.

    Its sequence is the time, or one more than that before, whichever is more: higher than all that
    pods remember, also where an old pointer was put back, or none is left.

    Args:
        old: The pointer before, if it can be built on.
        now: By the clock of S3, which all publishers share.

    Raises:
        ReleaseError: There is no higher sequence.
    """
    sequence = max(int(now.timestamp()), old.turn.sequence + 1 if old else 1)
    if sequence > SEQUENCE_LIMIT:
        raise ReleaseError(
            "pointer_invalid",
            f"{POINTER_KEY} has the highest sequence that there is",
            f"Nobody counts that far: find out who wrote it, delete {POINTER_KEY}, and publish.",
        )
    turn = Turn(revision, sequence, now)
    if old is not None and old.revision == revision:
        return turn._replace(restores=old.turn.restores), old.history
    return turn, old.turns() if old else ()


def swap_pointer(
    store: Store, pointer: Pointer, manifest: bytes, before: Current | None
) -> tuple[Pointer, bool]:
    """
    Make a release current, in place of what was current when we began.

    Killed at any moment, either the old or the new one is current.

    Args:
        manifest: Of the release, as it is in the bucket.
        before: What was read at the beginning; None for the first release.

    Returns:
        The pointer as it was written, and whether the server has conditional writes.

    Raises:
        ReleaseError: ``publish_conflict``: another publisher made another release current.
    """
    is_guarded = _has_conditions(store, pointer.revision, manifest, before)
    _warn(store, before)
    old = before.pointer if before else None
    if old is not None and old.revision != pointer.revision:
        # Before it is left: killed in between, it merely counts as used a moment longer.
        store.put(left_key(old.revision), b"")
    _write(store, pointer, before, is_guarded=is_guarded)
    for _ in range(DATE_TRIES):
        # Without conditions, who replaces ours may not have seen it: that look is the last one.
        now = read_pointer(store) if is_guarded else find_ours(store, pointer, before)
        is_ours = now and now.pointer and now.pointer.turn.sequence == pointer.turn.sequence
        if not (now and now.modified_at and now.replayed and is_ours):
            break
        # It would pass for an old one: it took too long, or answers and objects are dated by two
        # clocks. So it says what it was dated.
        before = now
        turn, history = next_turn(pointer, pointer.revision, now.modified_at)
        pointer = pointer._replace(turn=turn, history=history)
        _write(store, pointer, before, is_guarded=is_guarded)
    return pointer, is_guarded


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
    except ConditionFailed:  # the answer to our own write may have been lost
        find_ours(store, pointer, before)


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
        raise _conflict(now, pointer)
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


def _conflict(now: Current | None, ours: Pointer) -> ReleaseError:
    if now is None:
        said = "was deleted"
    elif now.pointer is None:
        said = "was overwritten by something that is not a pointer"
    elif now.refusal:
        said = f"was replaced by one that is not trusted ({now.refusal})"
    elif now.pointer.revision == ours.revision:
        said = "was replaced by an older one to the same release"
    else:
        by, turn = now.pointer.origin.by or "someone else", now.pointer.turn
        said = (
            f"was replaced: {by} made release {short(turn.revision)} current at "
            f"{turn.since:%Y-%m-%d %H:%M:%S} UTC"
        )
    return ReleaseError(
        "publish_conflict",
        f"meanwhile {POINTER_KEY} {said}; the pointer to {short(ours.revision)} that this command "
        "made is not current",
        "Look at `s3-sync releases`, and run it again if it should be. Let CI run one at a time.",
    )
