"""
The commands that make a release current: publish, promote, rollback.

Each has the whole release in hand, built or downloaded and verified, before it writes anything.
"""

from __future__ import annotations

from pathspec import GitIgnoreSpec

from s3_sync.publisher.catalog import (
    Current,
    Trust,
    find_manifest,
    read_current,
    resolve,
    turn_of,
)
from s3_sync.publisher.folder import look
from s3_sync.publisher.parcel import Parcel, build_parcel, download_parcel, scratch
from s3_sync.publisher.report import NAMED, Report, checked_facts, compare, size_text
from s3_sync.publisher.store import Store
from s3_sync.publisher.swap import Order, Swap, is_whole
from s3_sync.release.format import Origin
from s3_sync.revision import short
from sidecar_runtime.printable import counted

RESULTS = {"publish": "published", "promote": "promoted", "restore": "rolled_back"}
DONE = {"publish": "Published", "promote": "Promoted", "restore": "Restored"}


def publish(order: Order, folder: str, rules: GitIgnoreSpec, origin: Origin) -> Report:
    """
    Make the content of a folder the current release.

    Raises:
        SidecarError: The publish failed; the current release has not changed.
    """
    look(folder, rules)  # report its problems even if S3 cannot be reached
    # Before the folder is read, so that a concurrent publish is not overwritten unseen.
    before = read_current(order.store, order.trust, forces=order.forces)
    with scratch("publish") as place:
        now = order.store.now()
        parcel, seen = build_parcel(folder, rules, place, origin, now, order.progress)
        report = _apply("publish", order, before, parcel, origin)
    report.facts["left_out"] = seen.left_out
    if seen.left_out:
        more = ", …" if len(seen.left_out) > NAMED else ""
        names = ", ".join(seen.left_out[:NAMED])
        report.lines.insert(0, f"Left out: {len(seen.left_out)} ({names}{more})")
    return report


def promote(order: Order, source: Store, trust: Trust, revision: str | None) -> Report:
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
        revision = turn_of(source, read_current(source, trust), "current").revision
    else:
        revision = resolve(source, revision)
    before = read_current(order.store, order.trust, forces=order.forces)
    with scratch("promote") as place:
        parcel = download_parcel(source, revision, place, order.progress)
        origin = parcel.manifest.origin._replace(by=order.who.by, ci_url=order.who.ci_url)
        report = _apply("promote", order, before, parcel, origin, place_of=source.url)
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
    before = read_current(store, order.trust, forces=order.forces and revision is not None)
    turn = turn_of(store, before, "previous") if revision is None else None
    target = turn.revision if turn else resolve(store, str(revision))
    if before is not None and before.pointer is not None and before.pointer.revision != target:
        turns = before.pointer.turns()
        turn = turn or next((one for one in turns if one.revision == target), None)
        # A release that is not in the history is older than all of it: all of it was left.
        restores = turn.sequence if turn else max(turns[-1].sequence - 1, 0)
        place_of = turn.promoted_from if turn else ""
    with scratch("rollback") as place:
        parcel = download_parcel(store, target, place, order.progress)
        origin = parcel.manifest.origin._replace(by=order.who.by, ci_url=order.who.ci_url)
        return _apply("restore", order, before, parcel, origin, restores, place_of)


def _apply(
    verb: str,
    order: Order,
    before: Current | None,
    parcel: Parcel,
    origin: Origin,
    restores: int = 0,
    place_of: str = "",
) -> Report:
    """
    Make a release current, unless it is or the gate refuses it; return what happened.
    """
    store, old = order.store, before.pointer if before else None
    files = counted(len(parcel.manifest.files), "file")
    what = f"{files}, {size_text(parcel.manifest.size_bytes)}"
    facts = {
        "url": store.url,
        "revision": parcel.revision,
        "previous": old.revision if old else None,
        "files": len(parcel.manifest.files),
        "size_bytes": parcel.manifest.size_bytes,
        "bundle_bytes": parcel.manifest.bundle_bytes,
        "origin": origin._asdict(),
    }
    if _is_done(order, before, parcel.revision):
        said = f"Unchanged: {store.url} is already at {short(parcel.revision)} ({what})"
        return Report([said], facts | {"result": "unchanged"})
    verdict = order.judge(parcel) if verb != "restore" else None
    if verdict is not None and verdict.checked and verb == "publish":
        parcel = parcel.checked(verdict.checked)
    changes = compare(find_manifest(store, old.revision) if old else None, parcel.manifest)
    facts |= {"airflow": checked_facts(parcel.manifest.checked), **changes.facts()}
    facts |= verdict.facts() if verdict else {}
    lines = verdict.lines() if verdict else []
    if order.is_dry:
        lines.append(f"Would {verb} {short(parcel.revision)} to {store.url}: {what}")
        facts["result"] = "planned"
    else:
        Swap(order, before).make_current(parcel, origin, restores, place_of)
        lines.append(f"{DONE[verb]} {short(parcel.revision)} to {store.url}: {what}")
        facts["result"] = RESULTS[verb]
        if signer := order.trust.signer:
            lines.append(f"Signed by {signer.key_id}")
            facts["signed_by"] = signer.key_id
    if old is not None and old.revision != parcel.revision:
        back = f"`s3-sync rollback {short(old.revision)} {store.url}` goes back to it"
        lines += [f"Changes: {changes.files}", *changes.lines(NAMED)]
        lines.append(f"Previous: {short(old.revision)}; {back}")
    return Report(lines, facts)


def _is_done(order: Order, before: Current | None, revision: str) -> bool:
    """
    Whether a release is current already, whole, and signed as this command would sign it.
    """
    if before is None or before.pointer is None or order.forces:
        return False
    is_current = before.pointer.revision == revision and before.is_ours(order.trust)
    return is_current and is_whole(order.store, revision) is not None
