"""
Back to a release that is there, in one step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from s3_sync.digest import sha256_of
from s3_sync.publisher.catalog import (
    ReleaseError,
    find_release,
    incomplete,
    is_shown,
    read_current,
    read_release,
)
from s3_sync.publisher.store import Store
from s3_sync.publisher.swap import has_conditions, swap_pointer
from s3_sync.release.facts import Origin
from s3_sync.release.pointer import HISTORY_LIMIT, Pointer


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
    if before is None:
        raise ReleaseError("history_empty", f"nothing was published to {store.url} yet")
    old = before.pointer
    if revision is None and not old.history:
        raise ReleaseError(
            "history_empty",
            f"there is no release before {old.revision} to go back to",
            "`s3-sync releases` lists those that are there; name one.",
        )
    target = revision or old.history[0]
    if target == old.revision:
        return Rollback(old, old, None)
    if revision is None and read_release(store, target) is None:
        raise ReleaseError(
            "history_empty",
            f"{target}, the release before {old.revision}, is not there any more",
            "It was pruned. `s3-sync releases` lists those that are there; name one.",
        )
    kept = find_release(store, target)
    if not kept.is_whole or kept.manifest is None:
        raise incomplete(target)
    origin = replace(kept.manifest.origin, by=who.by, ci_url=who.ci_url)
    after = Pointer(
        target,
        sha256_of(kept.data),
        len(kept.data),
        datetime.now(UTC),
        origin,
        history_after(old, target),
    )
    if is_dry:
        return Rollback(old, after, None)
    is_guarded = has_conditions(store, target, kept.data, before)
    swap_pointer(store, after, before, is_guarded=is_guarded)
    if not is_shown(store, after):
        raise incomplete(target)
    return Rollback(old, after, is_guarded)


def history_after(old: Pointer, revision: str) -> tuple[str, ...]:
    """
    Return the history once a revision is current again.

    Where it is one of the history, all newer ones leave it, so that the next rollback goes
    further back, never forward to what was just left.
    """
    if revision in old.history:
        return old.history[old.history.index(revision) + 1 :]
    return (old.revision, *old.history)[:HISTORY_LIMIT]
