"""
Back to a release that is there, in one step.
"""

from __future__ import annotations

from dataclasses import dataclass

from s3_sync.publisher.bring import pointer_to, put_manifest
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
from s3_sync.publisher.store import Store
from s3_sync.publisher.swap import announce, next_turn, swap_pointer
from s3_sync.release.facts import Origin
from s3_sync.release.names import POINTER_KEY, manifest_key
from s3_sync.release.pointer import Pointer, Turn
from s3_sync.revision import short


@dataclass(frozen=True, slots=True)
class Rollback:
    """
    What a rollback did, or would do.

    Args:
        before: None where there was no pointer, or none that is trusted.
        is_guarded: Whether the server has conditional writes; None where nothing was written.
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
        revision: Which; None: the one before the current one.
        who: Who does it; the rest of the origin is the release's own.
        repairs: Whether the pointer is replaced in any case, where a revision is named.

    Raises:
        SidecarError: There is none to go back to, or it is not whole; nothing is changed.
    """
    before = read_current(store) if revision is None else read_replaceable(store, repairs=repairs)
    old = before.trusted if before else None
    if revision is None:
        restored: Turn | None = _previous(store, before)
    else:
        restored = next((t for t in old.history if t.revision == revision), None) if old else None
    target = revision or (restored.revision if restored else "")
    if before and old and target == old.revision and not before.replayed and not repairs:
        return Rollback(old, old, None)
    kept = read_release(store, target)
    if kept is None and revision is None:
        raise ReleaseError(
            "history_empty",
            f"{short(target)}, the release before the current one, is not there any more",
            "It was pruned. `s3-sync releases` lists those that are there; name one.",
        )
    if kept is None:
        raise unknown(store, target)
    if not kept.is_whole or kept.manifest is None:
        raise incomplete(target)
    if kept.refusal:
        raise untrusted(store, manifest_key(target), kept.refusal)
    origin = kept.manifest.head.origin._replace(by=who.by, ci_url=who.ci_url)
    turn, history = next_turn(old, target, store.now())
    if old and target != old.revision:
        # Else from before all of it, as far as anybody can tell: so all of it was left.
        restores = restored.sequence if restored else history[-1].sequence - 1
        turn = turn._replace(restores=restores)
    after = pointer_to(store, turn, kept, origin, history)
    if is_dry:
        return Rollback(old, after, None)
    if not announce(store, target):
        raise unknown(store, target)
    after, is_guarded = swap_pointer(store, after, kept.data, before)
    if not find_shown(store, after):
        # By a prune that puts it back, too, unless it is killed before.
        put_manifest(store, target, kept, None)
        if not find_shown(store, after):
            raise incomplete(target)
    return Rollback(old, after, is_guarded)


def _previous(store: Store, before: Current | None) -> Turn:
    """
    Return what was current before what is.

    Raises:
        ReleaseError: Nothing was, or nobody can tell.
    """
    pointer = before.trusted if before else None
    if before is None or pointer is None:
        raise ReleaseError(
            "history_empty",
            f"{store.url}{POINTER_KEY} is not there, so nobody knows what was current before",
            "`s3-sync releases` lists what is there; name one. If there is none, publish.",
        )
    check_not_replayed(before)
    if pointer.previous is None:
        raise ReleaseError(
            "history_empty",
            f"there is no release before {short(pointer.revision)} to go back to",
            "`s3-sync releases` lists those that are there; name one.",
        )
    return pointer.previous
