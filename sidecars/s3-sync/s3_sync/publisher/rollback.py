"""
Back to a release that is there, in one step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from s3_sync.publisher.bring import pointer_to, put_manifest
from s3_sync.publisher.catalog import (
    ReleaseError,
    check_not_replayed,
    find_shown,
    incomplete,
    read_current,
    read_release,
    unknown,
    untrusted,
)
from s3_sync.publisher.store import Store
from s3_sync.publisher.swap import announce, next_turn, swap_pointer
from s3_sync.release.facts import Origin
from s3_sync.release.names import manifest_key
from s3_sync.release.pointer import HISTORY_LIMIT, Pointer
from s3_sync.revision import short


@dataclass(frozen=True, slots=True)
class Rollback:
    """
    What a rollback did, or would do.

    Args:
        is_guarded: Whether the server has conditional writes; None where nothing was written.
    """

    before: Pointer
    after: Pointer
    is_guarded: bool | None


def roll_back(store: Store, revision: str | None, who: Origin, *, is_dry: bool) -> Rollback:
    """
    Make a release current again.

    Args:
        revision: Which; None: the one before the current one.
        who: Who does it; the rest of the origin is the release's own.

    Raises:
        SidecarError: There is none to go back to, or it is not whole; nothing is changed.
    """
    before = read_current(store)
    old = before.trusted if before else None
    if before is None or old is None:
        raise ReleaseError("history_empty", f"nothing was published to {store.url} yet")
    if revision is None:
        check_not_replayed(before)
    named = (turn for turn in old.history if turn.revision == revision)
    restored = old.previous if revision is None else next(named, None)
    target = revision or (restored.revision if restored else "")
    if not target:
        raise ReleaseError(
            "history_empty",
            f"there is no release before {short(old.revision)} to go back to",
            "`s3-sync releases` lists those that are there; name one.",
        )
    if target == old.revision and not before.replayed:
        return Rollback(old, old, None)
    kept = read_release(store, target)
    if kept is None and revision is None:
        raise ReleaseError(
            "history_empty",
            f"{short(target)}, the release before {short(old.revision)}, is not there any more",
            "It was pruned. `s3-sync releases` lists those that are there; name one.",
        )
    if kept is None:
        raise unknown(store, target)
    if not kept.is_whole or kept.manifest is None:
        raise incomplete(target)
    if kept.refusal:
        raise untrusted(store, manifest_key(target), kept.refusal)
    origin = replace(kept.manifest.head.origin, by=who.by, ci_url=who.ci_url)
    turn, history = next_turn(old, target, store.now())
    if target != old.revision and restored is not None:
        turn = replace(turn, restores=restored.sequence)
    elif target != old.revision and len(history) == HISTORY_LIMIT:
        # From before all of it, as far as anybody can tell: so all of it was left.
        turn = replace(turn, restores=history[-1].sequence - 1)
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
