"""
Makes a release current: bundle → manifest → pointer, and one more look.

If it is killed before the pointer is written, the current release stays, and at most unused objects
are left: the next publish of the same content completes them, `prune-releases` removes them.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import NamedTuple

from s3_sync.publisher.catalog import Current, ReleaseError, Trust, look_at_pointer
from s3_sync.publisher.gate import Verdict
from s3_sync.publisher.parcel import Parcel
from s3_sync.publisher.report import Progress
from s3_sync.publisher.store import ConditionFailed, Listed, Store, Stored, unsupported
from s3_sync.release.format import (
    POINTER_KEY,
    SEQUENCE_LIMIT,
    Invalid,
    Origin,
    Pointer,
    Turn,
    bundle_key,
    manifest_key,
    parse_manifest,
    write_pointer,
)
from s3_sync.revision import short

# `prune-releases` removes nothing younger than a day; what is older than half of it is written
# again before it is used. So a prune and a publish at the same time do not meet.
DAY = timedelta(days=1)
# No object has this ETag: no known content has this MD5.
NO_ETAG = '"00000000000000000000000000000000"'


def is_whole(store: Store, revision: str, *, is_fresh: bool = False) -> bytes | None:
    """
    Return the manifest of a release that is in the bucket with its bundle; None if it is not.

    Args:
        is_fresh: Whether both must be too young to be pruned.
    """
    stored = store.read(manifest_key(revision))
    if stored is None or (is_fresh and not _is_fresh(store, stored)):
        return None
    try:
        manifest = parse_manifest(stored.data, revision)
    except Invalid:
        return None
    bundle = store.look(bundle_key(manifest.bundle_sha256))
    if bundle is None or bundle.size_bytes != manifest.bundle_bytes:
        return None
    return stored.data if not is_fresh or _is_fresh(store, bundle) else None


class Order(NamedTuple):
    """
    What a command that changes the current release was told.

    Args:
        judge: Runs the gate on a release, and raises if it refuses.
        who: Who runs the command.
        forces: Whether to write everything again, and replace a pointer that is damaged or not
            trusted.
    """

    store: Store
    trust: Trust
    judge: Callable[[Parcel], Verdict]
    who: Origin
    progress: Progress
    is_dry: bool = False
    forces: bool = False


class Swap:
    """
    One change of the pointer.

    Args:
        before: The pointer when the command began, so that no other publisher is overwritten
            unseen; None for the first release.
    """

    def __init__(self, order: Order, before: Current | None) -> None:
        self._order = order
        self._store = order.store
        self._before = before

    def make_current(
        self, parcel: Parcel, origin: Origin, restores: int, promoted_from: str
    ) -> None:
        """
        Write what is missing of a release, and make it current.

        Raises:
            ReleaseError: ``publish_conflict``: another publisher made another release current.
            SidecarError: S3 refuses, or has no conditional writes; nothing has changed.
        """
        data = self._ship(parcel, forces=self._order.forces)
        self._require_conditions(parcel.revision, data)
        self._date_replaced(parcel.revision)
        self._write(self._next(parcel.revision, origin, restores, promoted_from))
        if not is_whole(self._store, parcel.revision):
            self._ship(parcel, forces=True)

    def _ship(self, parcel: Parcel, *, forces: bool) -> bytes:
        """
        Write bundle and manifest, unless they are there and too young to be pruned; return the
        manifest in the bucket.
        """
        store, manifest, revision = self._store, parcel.manifest, parcel.revision
        if not forces and (data := is_whole(store, revision, is_fresh=True)):
            return data
        key = bundle_key(manifest.bundle_sha256)
        bundle = None if forces else store.look(key)
        is_up = bundle is not None and bundle.size_bytes == manifest.bundle_bytes
        if bundle is None or not is_up or not _is_fresh(store, bundle):
            tell = self._order.progress.steps("Uploading", manifest.bundle_bytes)
            store.upload(key, parcel.path, tell)
        store.put(manifest_key(revision), parcel.data)
        return parcel.data

    def _require_conditions(self, revision: str, data: bytes) -> None:
        """
        Check that the store obeys the condition that the swap relies on: with a write that it must
        refuse, and that changes nothing if it does not. `rclone serve s3` ignores conditions
        (2026-11).

        Raises:
            SidecarError: ``store_unsupported``.
        """
        etag = NO_ETAG if self._before else ""
        try:
            self._store.put(manifest_key(revision), data, if_absent=not etag, if_etag=etag)
        except ConditionFailed:
            return
        raise unsupported(self._store)

    def _date_replaced(self, revision: str) -> None:
        """
        Write the manifest of the current release again, so that its date says when it was replaced.
        """
        old = self._before.pointer if self._before else None
        if old is None or old.revision == revision:
            return
        stored = self._store.read(manifest_key(old.revision))
        if stored is not None and not _is_fresh(self._store, stored):
            self._store.put(manifest_key(old.revision), stored.data)

    def _next(self, revision: str, origin: Origin, restores: int, promoted_from: str) -> Pointer:
        """
        Return the next pointer; one to the release that is current already adds no turn.

        Its sequence is the time in seconds, or the previous sequence plus one if that is higher:
        more than any that pods remember, even if an old pointer was restored or it is missing.
        """
        old, now = self._before.pointer if self._before else None, self._store.now()
        sequence = max(int(now.timestamp()), old.turn.sequence + 1 if old else 1)
        if sequence > SEQUENCE_LIMIT:
            raise ReleaseError(
                "pointer_invalid",
                f"{POINTER_KEY} has the highest possible sequence, {SEQUENCE_LIMIT}",
                f"s3-sync does not write it: find out who did, delete {POINTER_KEY}, and publish.",
            )
        turn = Turn(revision, sequence, now, restores, promoted_from)
        if old is None or old.revision != revision:
            return Pointer(turn, origin, old.turns() if old else ())
        place = promoted_from or old.turn.promoted_from
        turn = turn._replace(restores=old.turn.restores, promoted_from=place)
        return Pointer(turn, origin, old.history)

    def _write(self, pointer: Pointer) -> None:
        store, before, trust = self._store, self._before, self._order.trust
        data = write_pointer(pointer)
        if trust.signer is not None:
            data = trust.signer.sign(data, store.bucket, store.prefix)
        etag = before.stored.etag if before else ""
        try:
            store.put(POINTER_KEY, data, if_absent=before is None, if_etag=etag)
        except ConditionFailed:
            # Perhaps by our own write, whose response was lost, or one of the same release.
            now = look_at_pointer(store, trust)
            if now is None or now.pointer is None or now.pointer.revision != pointer.revision:
                raise _conflict(now, pointer.revision) from None


def _is_fresh(store: Store, found: Stored | Listed) -> bool:
    return store.age_of(found) < DAY / 2


def _conflict(now: Current | None, ours: str) -> ReleaseError:
    if now is None:
        said = "was deleted"
    elif now.pointer is None:
        said = f"was overwritten by something that is refused ({now.refusal})"
    else:
        by, turn = now.pointer.origin.by or "someone else", now.pointer.turn
        said = (
            f"was replaced: {by} made release {short(turn.revision)} current at "
            f"{turn.since:%Y-%m-%d %H:%M:%S} UTC"
        )
    return ReleaseError(
        "publish_conflict",
        f"meanwhile {POINTER_KEY} {said}; release {short(ours)} of this command is not current",
        "Check `s3-sync releases`; if your release should be current, run the command again. Let "
        "CI run one publish at a time.",
    )
