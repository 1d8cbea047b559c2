"""
The only writer of the pointer: writes it, reads it back, and judges what became of it.

The answer to the write is never the verdict. A store that looks at the condition and
then writes (S3Proxy, S3Mock) answers two publishers at once with success, and shows one
of them. A refusal may be that of botocore's retry, after a first attempt whose answer
was lost, or that of a store which refuses a condition that is met. A failure may follow
the write. Only the pointer that is there a moment later tells.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from s3_sync.names import short
from s3_sync.publisher.bucket import IF_NEW, Boto3Store, Condition, ConditionFailed
from s3_sync.publisher.catalog import Current, read_current
from s3_sync.publisher.folder import Parcel
from s3_sync.reasons import S3Error
from s3_sync.release.format import POINTER_KEY, Turn, manifest_key
from sidecar_runtime.errors import SidecarError

# The wait before the pointer is read back: where a store looks and then writes, another
# publisher's write may follow ours. Without the wait, S3Mock lost 6 of 12 publishes
# unseen, and S3Proxy 1 of 24 (2026-11).
SETTLED_SECONDS = 0.3
# How often each condition is tried, if the store refuses it and nobody has written.
ROUNDS = 3


class Draft(NamedTuple):
    """
    The pointer that a command wants to write.

    Args:
        turn: The turn that it begins.
        data: Its bytes, signed if there is a key.
        signed_by: The key; empty if it is not signed.
    """

    turn: Turn
    data: bytes
    signed_by: str


def replace(store: Boto3Store, before: Current, draft: Draft, parcel: Parcel) -> None:
    """
    Replace the pointer that was read.

    If it is killed, either the old or the new pointer is there, whole.

    Args:
        parcel: The release that the draft names; its manifest is in the bucket.

    Raises:
        SidecarError: The pointer that is there afterwards neither names the release nor
            has the draft's turn in its history; or it is unknown whether it does.
    """
    if before.etag is None:
        conditions = [IF_NEW]
    elif before.etag:
        # Ceph's RGW (16.2, 18.2) compares the ETag without quotes, byte by byte.
        conditions = [
            {"IfMatch": before.etag},
            {"IfMatch": before.etag.strip('"')},
        ]
    else:
        raise store.unsupported()
    for condition in conditions * ROUNDS:
        _must_refuse(store, parcel, condition)
        refused, now = _write(store, draft, condition)
        # Refused, but nobody has changed it: the store may compare the ETag in another
        # form, or be busy with another conditional write (409), after which AWS says to
        # look and try again.
        if now.etag != before.etag or not isinstance(refused, ConditionFailed):
            break
    if not _is_made(before, now, draft):
        raise _cause(before, now, draft, refused)


def _must_refuse(store: Boto3Store, parcel: Parcel, condition: Condition) -> None:
    """
    Write what the store must refuse, and what changes nothing if it does not: `rclone
    serve s3` ignores conditions, and Ceph ignores If-None-Match in a versioned bucket
    (2026-11). The manifest is there, and its ETag is another one than the pointer's.

    Raises:
        SidecarError: ``store_unsupported``; the current release has not changed.
    """
    try:
        store.put(manifest_key(parcel.revision), parcel.data, condition)
    except ConditionFailed:
        return
    raise store.unsupported()


def _write(
    store: Boto3Store, draft: Draft, condition: Condition
) -> tuple[SidecarError | None, Current]:
    """
    Write the draft; return the error that the store reports, if any, and the pointer
    that is there a moment later.

    Raises:
        SidecarError: It cannot be read, so it is unknown what became of the write.
    """
    refused = None
    try:
        store.put(POINTER_KEY, draft.data, condition)
    except SidecarError as error:
        refused = error
    time.sleep(SETTLED_SECONDS)
    try:
        return refused, read_current(store, forces=True)
    except SidecarError as error:
        error.advice = (
            "It is unknown whether the release is current: run the command again. "
            f"{error.advice}"
        )
        raise


def _is_made(before: Current, now: Current, draft: Draft) -> bool:
    """
    Whether the release was made current: by us, or by somebody else meanwhile.
    """
    if now.pointer is None or now.etag == before.etag:
        return False
    is_same = now.pointer.revision == draft.turn.revision
    is_trusted = now.signed_by == draft.signed_by
    # As the current one, an equal turn may be that of another key, in the same second.
    return (is_same and is_trusted) or draft.turn in now.pointer.history


def _cause(
    before: Current, now: Current, draft: Draft, refused: SidecarError | None
) -> SidecarError:
    """
    Return why a release was not made current, as far as the pointer shows it.
    """
    name = short(draft.turn.revision)
    if refused is None:
        return S3Error(
            "publish_lost",
            f"the store accepted {name}, but does not show it: {now.news}",
        )
    if now.etag != before.etag:
        return S3Error(
            "publish_conflict", f"meanwhile {now.news}; {name} is not current"
        )
    return refused
