"""
The commands that make a release current: publish, promote, rollback.

Each has the whole release in hand, built or downloaded and verified, before it writes anything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from pathspec import GitIgnoreSpec

from s3_sync.publisher.catalog import (
    Current,
    Trust,
    find_manifest,
    previous_turn,
    read_current,
    resolve,
)
from s3_sync.publisher.folder import look
from s3_sync.publisher.gate import Verdict
from s3_sync.publisher.parcel import Parcel, build_parcel, download_parcel, scratch
from s3_sync.publisher.report import (
    NAMED,
    Difference,
    Progress,
    Report,
    checked_facts,
    compare,
    size_text,
)
from s3_sync.publisher.store import Store
from s3_sync.publisher.swap import Swap, is_whole
from s3_sync.release.format import Origin
from s3_sync.revision import short
from sidecar_runtime.printable import counted

NAMED_LEFT_OUT = 10

# Runs the gate on a release, and raises if it refuses.
Judge = Callable[[Parcel], Verdict]


class Order(NamedTuple):
    """
    What a command was told.

    Args:
        forces: Whether to write everything anew, and replace a pointer that is damaged or not
            trusted.
        who: Who runs the command.
    """

    trust: Trust
    judge: Judge
    who: Origin
    progress: Progress
    is_dry: bool = False
    forces: bool = False


def publish(
    store: Store, folder: str, rules: GitIgnoreSpec, origin: Origin, order: Order
) -> Report:
    """
    Make the content of a folder the current release.

    Raises:
        SidecarError: The publish failed; the current release has not changed.
    """
    look(folder, rules)  # report its problems even if S3 cannot be reached
    # Before the folder is read, so that a concurrent publish is not overwritten unseen.
    before = read_current(store, order.trust, forces=order.forces)
    with scratch("publish") as place:
        parcel, seen = build_parcel(folder, rules, place, origin, store.now(), order.progress)
        left_out = _left_out(seen.left_out)
        files = counted(len(parcel.manifest.files), "file")
        what = f"{files}, {size_text(parcel.manifest.size_bytes)}"
        facts = {**_facts(store, parcel, before), "left_out": seen.left_out}
        if _is_done(store, parcel.revision, before, order):
            unchanged = f"Unchanged: {store.url} is already at {short(parcel.revision)} ({what})"
            return Report([*left_out, unchanged], facts | {"result": "unchanged"})
        verdict = order.judge(parcel)
        if verdict.checked:
            parcel = parcel.checked(verdict.checked)
        changes = _changes(store, parcel, before)
        facts |= {**verdict.facts(), **changes.facts(), "origin": origin._asdict()}
        lines = [*left_out, *verdict.lines()]
        if order.is_dry:
            lines.append(f"Would publish {short(parcel.revision)} to {store.url}: {what}")
            lines += _change_lines(store, parcel, before, changes)
            return Report(lines, facts | {"result": "planned"})
        Swap(store, order.trust, before, order.progress, forces=order.forces).make_current(
            parcel, origin
        )
    packed = size_text(parcel.manifest.bundle_bytes)
    done = f"Published {short(parcel.revision)} to {store.url}: {what} in a bundle of {packed}"
    lines += [done, *_signed(order), *_change_lines(store, parcel, before, changes)]
    return Report(lines, facts | {"result": "published"} | _signed_facts(order))


def promote(
    source: Store, trust: Trust, store: Store, revision: str | None, order: Order
) -> Report:
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
        turn = previous_turn(source, read_current(source, trust), "current")
        revision = turn.revision
    else:
        revision = resolve(source, revision)
    before = read_current(store, order.trust, forces=order.forces)
    with scratch("promote") as place:
        parcel = download_parcel(source, revision, place, order.progress)
        facts = {**_facts(store, parcel, before), "source": source.url}
        if _is_done(store, revision, before, order):
            unchanged = f"Unchanged: {store.url} is already at {short(revision)}"
            return Report([unchanged], facts | {"result": "unchanged"})
        verdict = order.judge(parcel)
        changes = _changes(store, parcel, before)
        facts |= {**verdict.facts(), **changes.facts()}
        way = f"{short(revision)} from {source.url} to {store.url}: {changes.files}"
        lines = verdict.lines() if verdict.checked else []
        if order.is_dry:
            return Report([*lines, f"Would promote {way}"], facts | {"result": "planned"})
        origin = parcel.manifest.origin._replace(by=order.who.by, ci_url=order.who.ci_url)
        Swap(store, order.trust, before, order.progress, forces=order.forces).make_current(
            parcel, origin, promoted_from=source.url
        )
    lines += [f"Promoted {way}", *_signed(order), *_change_lines(store, parcel, before, changes)]
    return Report(lines, facts | {"result": "promoted"} | _signed_facts(order))


def roll_back(store: Store, revision: str | None, order: Order) -> Report:
    """
    Make an earlier release current again.

    Args:
        revision: The revision or its first digits; None: the one before the current one.

    Raises:
        SidecarError: It does not exist, or is damaged; nothing is changed.
    """
    before = read_current(store, order.trust, forces=order.forces and revision is not None)
    old = before.pointer if before else None
    turn = previous_turn(store, before) if revision is None else None
    target = turn.revision if turn else resolve(store, str(revision))
    if _is_done(store, target, before, order):
        facts = {"result": "unchanged", "url": store.url, "revision": target, "previous": target}
        return Report([f"Unchanged: {store.url} is already at {short(target)}"], facts)
    with scratch("rollback") as place:
        parcel = download_parcel(store, target, place, order.progress)
        facts = {**_facts(store, parcel, before), **_changes(store, parcel, before).facts()}
        origin = parcel.manifest.origin._replace(by=order.who.by, ci_url=order.who.ci_url)
        restores, place_of = 0, ""
        if old is not None and old.revision != target:
            turn = turn or next((one for one in old.history if one.revision == target), None)
            # A release that is not in the history is older than all of it: all of it was left.
            last = (old.turn, *old.history)[-1]
            restores = turn.sequence if turn else max(last.sequence - 1, 0)
            place_of = turn.promoted_from if turn else ""
        if not order.is_dry:
            Swap(store, order.trust, before, order.progress).make_current(
                parcel, origin, restores, place_of
            )
    left = short(old.revision) if old and old.revision != target else ""
    what = ", ".join(part for part in (origin.commit[:12], origin.message) if part)
    verb = "Would roll" if order.is_dry else "Rolled"
    way = f"back {f'from {left} ' if left else ''}to {short(target)}{what and f' ({what})'}"
    lines = [f"{verb} {store.url} {way}", *([] if order.is_dry else _signed(order))]
    if left:
        lines.append(f"To undo this: `s3-sync rollback {left} {store.url}`")
    result = "planned" if order.is_dry else "rolled_back"
    return Report(lines, facts | {"result": result} | _signed_facts(order))


def _is_done(store: Store, revision: str, before: Current | None, order: Order) -> bool:
    """
    Whether a release is current already, whole, and signed as this command would sign it.
    """
    if before is None or before.pointer is None or order.forces:
        return False
    is_current = before.pointer.revision == revision and before.is_ours(order.trust)
    return is_current and is_whole(store, revision) is not None


def _changes(store: Store, parcel: Parcel, before: Current | None) -> Difference:
    old = before.pointer if before else None
    return compare(find_manifest(store, old.revision) if old else None, parcel.manifest)


def _facts(store: Store, parcel: Parcel, before: Current | None) -> dict[str, Any]:
    old = before.pointer if before else None
    return {
        "url": store.url,
        "revision": parcel.revision,
        "previous": old.revision if old else None,
        "files": len(parcel.manifest.files),
        "size_bytes": parcel.manifest.size_bytes,
        "bundle_bytes": parcel.manifest.bundle_bytes,
        "airflow": checked_facts(parcel.manifest.checked),
    }


def _change_lines(
    store: Store, parcel: Parcel, before: Current | None, changes: Difference
) -> list[str]:
    old = before.pointer if before else None
    if old is None or old.revision == parcel.revision:
        return []
    back = f"Previous: {short(old.revision)}; `s3-sync rollback {store.url}` goes back to it"
    return [f"Changes: {changes.files}", *changes.lines(NAMED), back]


def _left_out(paths: tuple[str, ...]) -> list[str]:
    if not paths:
        return []
    more = ", …" if len(paths) > NAMED_LEFT_OUT else ""
    return [f"Left out: {len(paths)} ({', '.join(paths[:NAMED_LEFT_OUT])}{more})"]


def _signed(order: Order) -> list[str]:
    return [f"Signed by {order.trust.signer.key_id}"] if order.trust.signer else []


def _signed_facts(order: Order) -> dict[str, str]:
    return {"signed_by": order.trust.signer.key_id} if order.trust.signer else {}
