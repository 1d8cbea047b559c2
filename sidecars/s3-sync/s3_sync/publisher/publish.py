"""
The commands that make a release current: publish, promote, rollback.

Each has the whole release in hand, built or downloaded and verified, before it writes anything. If
it is killed before the pointer is written, the current release stays, and at most unused objects
are left: the next publish of the same content completes them, `prune-releases` removes them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from pathspec import GitIgnoreSpec

from s3_sync.digest import short
from s3_sync.publisher import catalog
from s3_sync.publisher.catalog import ReleaseError
from s3_sync.publisher.folder import Parcel, build_parcel, download_parcel, look, scratch
from s3_sync.publisher.gate import NAMED, Verdict
from s3_sync.publisher.releases import Report, compare, size_text
from s3_sync.publisher.store import ConditionFailed, Store, Stored
from s3_sync.release import format as form
from sidecar_runtime.errors import counted

# No object has this ETag: no known content has this MD5.
NO_ETAG = '"00000000000000000000000000000000"'
# Each way to make a release current: its result, and what is said.
DONE = {
    "publish": ("published", "Published"),
    "promote": ("promoted", "Promoted"),
    "restore": ("rolled_back", "Restored"),
}


class Order(NamedTuple):
    """
    What a command that changes the current release works with.

    Args:
        judge: Runs the gate on a release, and raises if it refuses.
        who: Who runs the command.
        forces: Whether to write everything again, and replace a pointer that is damaged or not
            trusted.
    """

    store: Store
    trust: catalog.Trust
    judge: Callable[[Parcel], Verdict]
    who: form.Origin
    is_dry: bool = False
    forces: bool = False

    def sign_off(self, parcel: Parcel) -> form.Origin:
        """
        Return the origin of a release, with who makes it current.
        """
        return parcel.manifest.origin._replace(by=self.who.by, ci_url=self.who.ci_url)


class Move(NamedTuple):
    """
    How a release becomes current.

    Args:
        verb: ``publish``, ``promote`` or ``restore``.
        origin: For the pointer.
        restores: The sequence of the turn that a rollback restores; else 0.
        promoted_from: The place that it comes from; else empty.
    """

    verb: str
    origin: form.Origin
    restores: int = 0
    promoted_from: str = ""


def publish(order: Order, folder: str, rules: GitIgnoreSpec, origin: form.Origin) -> Report:
    """
    Make the content of a folder the current release.

    Raises:
        SidecarError: The publish failed; the current release has not changed.
    """
    look(folder, rules)  # report its problems even if S3 cannot be reached
    # Before the folder is read, so that a concurrent publish is not overwritten unseen.
    before = catalog.read_current(order.store, order.trust, forces=order.forces)
    with scratch("publish") as place:
        parcel, seen = build_parcel(folder, rules, place, origin, order.store.now())
        report = _apply(order, before, parcel, Move("publish", origin))
    report.facts["left_out"] = seen.left_out
    if seen.left_out:
        more = ", …" if len(seen.left_out) > NAMED else ""
        names = ", ".join(seen.left_out[:NAMED])
        report.lines.insert(0, f"Left out: {len(seen.left_out)} ({names}{more})")
    return report


def promote(order: Order, source: Store, trust: catalog.Trust, revision: str | None) -> Report:
    """
    Make a release of one place current in another, byte for byte.

    Args:
        trust: The keys that the source's pointer must be signed with.
        revision: The revision or its first digits; None: the current one of the source.

    Raises:
        SidecarError: The release is missing or damaged, the gate refuses it, or another publisher
            was faster.
    """
    if revision is None:
        revision = catalog.turn_of(source, catalog.read_current(source, trust), "current").revision
    else:
        revision = catalog.resolve(source, revision)
    before = catalog.read_current(order.store, order.trust, forces=order.forces)
    with scratch("promote") as place:
        parcel = download_parcel(source, revision, place)
        move = Move(
            "promote",
            order.sign_off(parcel),
            promoted_from=source.url[: form.PLACE_LIMIT_CHARACTERS],
        )
        report = _apply(order, before, parcel, move)
    report.facts["source"] = source.url
    return report


def roll_back(order: Order, revision: str | None) -> Report:
    """
    Make an earlier release current again.

    Args:
        revision: The revision or its first digits; None: the one before the current one.

    Raises:
        SidecarError: It does not exist, or is damaged; nothing is changed.
    """
    store, restores, place_of = order.store, 0, ""
    before = catalog.read_current(store, order.trust, forces=order.forces and revision is not None)
    turn = catalog.turn_of(store, before, "previous") if revision is None else None
    target = turn.revision if turn else catalog.resolve(store, str(revision))
    if before is not None and before.pointer is not None and before.pointer.revision != target:
        turns = before.pointer.turns()
        turn = turn or next((one for one in turns if one.revision == target), None)
        # A release that is not in the history is older than all of it: all of it was left.
        restores = turn.sequence if turn else max(turns[-1].sequence - 1, 0)
        place_of = turn.promoted_from if turn else ""
    with scratch("rollback") as place:
        parcel = download_parcel(store, target, place)
        return _apply(
            order, before, parcel, Move("restore", order.sign_off(parcel), restores, place_of)
        )


def _apply(order: Order, before: catalog.Current | None, parcel: Parcel, move: Move) -> Report:
    """
    Make a release current, unless it is or the gate refuses it; return what happened.
    """
    store, old, signer = order.store, before.pointer if before else None, order.trust.signer
    manifest, revision, verb = parcel.manifest, parcel.revision, move.verb
    what = f"{counted(len(manifest.files), 'file')}, {size_text(manifest.size_bytes)}"
    facts = {
        "url": store.url,
        "revision": revision,
        "previous": old.revision if old else None,
        "files": len(manifest.files),
        "size_bytes": manifest.size_bytes,
        "bundle_bytes": manifest.bundle_bytes,
        "origin": move.origin._asdict(),
    }
    is_ours = before is not None and (signer is None or before.signed_by == signer.key_id)
    is_current = old is not None and old.revision == revision and is_ours
    if is_current and not order.forces and is_whole(store, revision):
        said = f"Unchanged: {store.url} is already at {short(revision)} ({what})"
        return Report([said], facts | {"result": "unchanged"})
    lines = []
    if verb != "restore":
        verdict = order.judge(parcel)
        lines, facts = verdict.lines(), facts | verdict.facts()
        if verdict.checked and verb == "publish":
            manifest = manifest._replace(checked=verdict.checked)
            parcel = Parcel(manifest, form.write_manifest(manifest), parcel.path)
    changes = compare(catalog.find_manifest(store, old.revision) if old else None, manifest)
    facts["changes"] = changes._asdict()
    if order.is_dry:
        lines.append(f"Would {verb} {short(revision)} to {store.url}: {what}")
        facts["result"] = "planned"
    else:
        _make_current(order, before, parcel, move)
        facts["result"], done = DONE[verb]
        lines.append(f"{done} {short(revision)} to {store.url}: {what}")
        if signer:
            lines.append(f"Signed by {signer.key_id}")
            facts["signed_by"] = signer.key_id
    if old is not None and old.revision != revision:
        back = f"`s3-sync rollback {short(old.revision)} {store.url}` goes back to it"
        lines += [f"Changes: {changes}", *changes.lines(NAMED)]
        lines.append(f"Previous: {short(old.revision)}; {back}")
    return Report(lines, facts)


# --- objects


def _make_current(order: Order, before: catalog.Current | None, parcel: Parcel, move: Move) -> None:
    """
    Write what is missing of a release, and make it current.

    Raises:
        ReleaseError: ``publish_conflict``: another publisher made another release current.
        SidecarError: S3 refuses, or has no conditional writes; nothing has changed.
    """
    store, revision, old = order.store, parcel.revision, before.pointer if before else None
    data = _ship(store, parcel, forces=order.forces)
    try:
        # A write that the store must refuse, and that changes nothing if it does not: `rclone serve
        # s3` ignores conditions (2026-11).
        store.put(form.manifest_key(revision), data, NO_ETAG if before else "")
    except ConditionFailed:
        pass
    else:
        raise store.unsupported()
    if old is not None and old.revision != revision:
        # Write its manifest again, so that its date says when it was replaced.
        stored = store.read(form.manifest_key(old.revision))
        if stored is not None and not _is_fresh(store, stored):
            store.put(form.manifest_key(old.revision), stored.data)
    data = form.write_pointer(_next_pointer(store, old, revision, move))
    if order.trust.signer is not None:
        data = order.trust.signer.sign(data, store.bucket, store.prefix)
    try:
        store.put(form.POINTER_KEY, data, before.etag if before else "")
    except ConditionFailed:
        # Perhaps by our own write, whose response was lost, or one of the same release.
        now = catalog.look_at_pointer(store, order.trust)
        if now is None or now.pointer is None or now.pointer.revision != revision:
            raise _conflict(now, revision) from None
    if not is_whole(store, revision):
        _ship(store, parcel, forces=True)


def _ship(store: Store, parcel: Parcel, *, forces: bool) -> bytes:
    """
    Write bundle and manifest, unless they are there and too young to be pruned; return the
    manifest in the bucket.
    """
    manifest, revision = parcel.manifest, parcel.revision
    if not forces and (data := is_whole(store, revision, is_fresh=True)):
        return data
    key = form.bundle_key(manifest.bundle_sha256)
    bundle = None if forces else store.look(key)
    is_up = bundle is not None and bundle.size_bytes == manifest.bundle_bytes
    if bundle is None or not is_up or not _is_fresh(store, bundle):
        with open(parcel.path, "rb") as body:
            store.put(key, body)
    store.put(form.manifest_key(revision), parcel.data)
    return parcel.data


def is_whole(store: Store, revision: str, *, is_fresh: bool = False) -> bytes | None:
    """
    Return the manifest of a release that is in the bucket with its bundle; None if it is not.

    Args:
        is_fresh: Whether both must be too young to be pruned.
    """
    stored = store.read(form.manifest_key(revision))
    if stored is None or (is_fresh and not _is_fresh(store, stored)):
        return None
    try:
        manifest = form.parse_manifest(stored.data, revision)
    except form.Invalid:
        return None
    bundle = store.look(form.bundle_key(manifest.bundle_sha256))
    if bundle is None or bundle.size_bytes != manifest.bundle_bytes:
        return None
    return stored.data if not is_fresh or _is_fresh(store, bundle) else None


def _is_fresh(store: Store, found: Stored) -> bool:
    return store.age_of(found) < catalog.DAY / 2


def _next_pointer(
    store: Store, old: form.Pointer | None, revision: str, move: Move
) -> form.Pointer:
    """
    Return the next pointer; one to the release that is current already adds no turn.

    Its sequence is the time in seconds, or the previous sequence plus one if that is higher: more
    than any that pods remember, even if an old pointer was restored or it is missing.
    """
    now = store.now()
    sequence = max(int(now.timestamp()), old.turn.sequence + 1 if old else 1)
    if sequence > form.SEQUENCE_LIMIT:
        raise ReleaseError(
            "pointer_invalid",
            f"{form.POINTER_KEY} has the highest possible sequence, {form.SEQUENCE_LIMIT}",
            "s3-sync does not write it: find out who did, delete the object, and publish.",
        )
    turn = form.Turn(revision, sequence, form.time_text(now), move.restores, move.promoted_from)
    if old is None or old.revision != revision:
        return form.Pointer(turn, move.origin, old.turns() if old else ())
    place = move.promoted_from or old.turn.promoted_from
    turn = turn._replace(restores=old.turn.restores, promoted_from=place)
    return form.Pointer(turn, move.origin, old.history)


def _conflict(now: catalog.Current | None, ours: str) -> ReleaseError:
    said = "was deleted" if now is None else f"was overwritten: {now.refusal}"
    if now is not None and now.pointer is not None:
        by, turn = now.pointer.origin.by or "someone else", now.pointer.turn
        said = f"was replaced: {by} made release {short(turn.revision)} current at {turn.since}"
    return ReleaseError(
        "publish_conflict",
        f"meanwhile {form.POINTER_KEY} {said}; the release {short(ours)} is not current",
        "Check `s3-sync releases`; if your release should be current, run the command again. Let "
        "CI run one publish at a time.",
    )
