"""
Rollback: makes an existing release current again, in one step.
"""

from __future__ import annotations

from dataclasses import dataclass

from s3_sync.publisher.catalog import (
    Current,
    ReleaseError,
    check_not_replayed,
    find_shown,
    incomplete,
    read_current,
    read_release,
    read_replaceable,
    unknown,
    untrusted,
)
from s3_sync.publisher.pointer_swap import announce, next_turn, swap_pointer
from s3_sync.publisher.store import Store
from s3_sync.publisher.upload import pointer_to, put_manifest
from s3_sync.release.facts import Origin
from s3_sync.release.names import POINTER_KEY, manifest_key
from s3_sync.release.pointer import Pointer, Turn
from s3_sync.revision import short


@dataclass(frozen=True, slots=True)
class Rollback:
    """
    The result of a rollback, or of a dry run.

    Args:
        before: The pointer that was replaced; None if none was trusted.
        is_guarded: Whether the server has conditional writes; None if nothing was written.
    """

    before: Pointer | None
    after: Pointer
    is_guarded: bool | None


def roll_back(
    store: Store, revision: str | None, who: Origin, *, is_dry: bool, repairs: bool = False
) -> Rollback:
    """
    Make a release current again.

    Args:
        revision: The release; None: the one before the current one.
        who: Who rolls back; the rest of the origin is taken from the release.
        repairs: Whether to replace the pointer in any case, if a revision is given.

    Raises:
        SidecarError: No such release exists, or it is incomplete; nothing is changed.
    """
    before = read_current(store) if revision is None else read_replaceable(store, repairs=repairs)
    old = before.trusted if before else None
    if revision is None:
        restored: Turn | None = _previous(store, before)
    else:
        restored = next((t for t in old.history if t.revision == revision), None) if old else None
    target = revision or (restored.revision if restored else "")
    is_there = before and old and target == old.revision
    if before and old and is_there and not before.replayed and not repairs:
        is_signed = store.needs_no_signature(before.signed_by)
        if is_signed and find_shown(store, old):
            return Rollback(old, old, None)
    kept = read_release(store, target)
    if kept is None and revision is None:
        raise ReleaseError(
            "history_empty",
            f"{short(target)}, the release before the current one, no longer exists",
            "It was pruned. Pass another revision; `s3-sync releases` lists the existing ones.",
        )
    if kept is None:
        raise unknown(store, target)
    if not kept.is_whole or kept.manifest is None:
        raise kept.sealed or incomplete(target)
    if kept.refusal:
        raise untrusted(store, manifest_key(target), kept.refusal)
    origin = kept.manifest.head.origin._replace(by=who.by, ci_url=who.ci_url)
    turn, history = next_turn(old, target, store.now())
    if old and target != old.revision:
        # A release that is not in the history is older than all of it: all of it was left.
        restores = restored.sequence if restored else history[-1].sequence - 1
        promoted_from = restored.promoted_from if restored else ""
        turn = turn._replace(restores=restores, promoted_from=promoted_from)
    after = pointer_to(store, turn, kept, origin, history)
    if is_dry:
        return Rollback(old, after, None)
    if not announce(store, target):
        raise unknown(store, target)
    after, is_guarded = swap_pointer(store, after, kept.data, before)
    if not find_shown(store, after):
        # A prune deleted it; it also restores it, unless it is killed before.
        put_manifest(store, target, kept, None)
        if not find_shown(store, after):
            raise incomplete(target)
    return Rollback(old, after, is_guarded)


def _previous(store: Store, before: Current | None) -> Turn:
    """
    Return the turn before the current one.

    Raises:
        ReleaseError: There is none, or it cannot be determined.
    """
    pointer = before.trusted if before else None
    if before is None or pointer is None:
        raise ReleaseError(
            "history_empty",
            f"{store.url}{POINTER_KEY} does not exist, so the previous release is unknown",
            "Pass a revision; `s3-sync releases` lists the existing ones. If there are none, "
            "publish.",
        )
    check_not_replayed(before)
    if pointer.previous is None:
        raise ReleaseError(
            "history_empty",
            f"there is no release before {short(pointer.revision)} to go back to",
            "Pass a revision; `s3-sync releases` lists the existing ones.",
        )
    return pointer.previous
