"""
Which releases go, and how: the manifest first, so that no release is ever there without its bundle.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from s3_sync.publisher.catalog import (
    CatalogEntry,
    ReleaseError,
    RevisionError,
    check_not_replayed,
    list_releases,
    read_current,
    read_left,
    read_pins,
    summarise,
)
from s3_sync.publisher.store import Listed, Store, Stored
from s3_sync.release.names import BUNDLE_FOLDER, POINTER_KEY, bundle_key, left_key, manifest_key

# A bundle without a manifest may be that of a publish which is under way.
UPLOAD_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Pruned:
    """
    What a prune removed, or would remove.

    Args:
        bundles: How many, those that no release named among them.
        freed_bytes: Of these bundles.
    """

    removed: tuple[CatalogEntry, ...]
    kept: tuple[CatalogEntry, ...]
    bundles: int
    freed_bytes: int


def choose(
    entries: Sequence[CatalogEntry],
    spared: Collection[str],
    keep_count: int,
    keep_for_seconds: float,
    now: datetime,
) -> list[CatalogEntry]:
    """
    Return the releases that go: neither spared, nor among those used last, nor used lately.

    Args:
        entries: Those used last first.
        spared: Revisions that stay whatever their age.
    """
    youngest = now - timedelta(seconds=keep_for_seconds)
    return [
        entry
        for entry in entries[keep_count:]
        if entry.revision not in spared and entry.used_at < youngest
    ]


def prune(
    store: Store,
    keep: Collection[str],
    keep_count: int,
    keep_for_seconds: float,
    *,
    is_dry: bool,
) -> Pruned:
    """
    Remove old releases, and bundles that no release names.

    Killed anywhere, every release that has a manifest is whole; the next prune removes the rest.

    Args:
        keep: More revisions that stay.

    Raises:
        ReleaseError: There are releases, and none is current; nothing is removed.
    """
    now = store.now()
    # Before the manifests: a publish writes them in this order.
    bundles = list(store.list(BUNDLE_FOLDER))
    # Before the marks: what is left after this has one.
    current, in_use = _in_use(store, is_first=True)
    entries = list_releases(store, current)
    if entries and not current:
        raise ReleaseError(
            "release_missing",
            f"there is no {store.url}{POINTER_KEY}, so nobody knows which release pods have",
            "Nothing was removed. Publish first.",
        )
    going = choose(entries, in_use.union(keep), keep_count, keep_for_seconds, now)
    gone = {entry.revision for entry in going}
    staying = summarise(store, [entry for entry in entries if entry.revision not in gone])
    going = summarise(store, going)
    if not is_dry:
        going = _remove(store, going)
        staying = summarise(store, list_releases(store))
    loose = _loose(bundles, staying, going, now)
    if not is_dry:
        loose = [bundle for bundle in loose if _delete_unless_new(store, bundle)]
        marked = set(read_left(store))
        for revision in marked - {entry.revision for entry in list_releases(store)}:
            store.delete(left_key(revision))
    return Pruned(tuple(going), tuple(staying), len(loose), sum(b.size_bytes for b in loose))


def read_names(path: str | None) -> list[str]:
    """
    Return the revisions that a file names, one a line; ``-`` is standard input.

    Raises:
        RevisionError: It cannot be read, or names none: what made it has failed, more likely than
            that nothing is needed any more.
    """
    if path is None:
        return []
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text()
    except (OSError, ValueError) as error:
        raise RevisionError(
            "release_unknown", f"--keep-from {path!r} cannot be read: {error}"
        ) from error
    if names := [name for line in text.splitlines() if (name := line.strip())]:
        return names
    raise RevisionError(
        "release_unknown", f"--keep-from {path!r} names no release: leave it out to keep none"
    )


def _in_use(store: Store, *, is_first: bool = False) -> tuple[str, set[str]]:
    """
    Return what is current, "" where nothing is, and all that may not go: that, what a rollback
    leads to, what is pinned.

    Args:
        is_first: Whether nothing was removed yet, so that it can end here.
    """
    current = read_current(store)
    if current is not None and is_first:
        check_not_replayed(current)
    pins = read_pins(store)
    pointer = current.trusted if current else None
    if pointer is None:
        return "", pins
    previous = {pointer.previous.revision} if pointer.previous else set()
    return pointer.revision, {pointer.revision, *previous, *pins}


def _remove(store: Store, going: Sequence[CatalogEntry]) -> list[CatalogEntry]:
    """
    Delete manifests; one that came into use meanwhile is put back, and is not returned.
    """
    removed: list[tuple[CatalogEntry, Stored]] = []
    for entry in going:
        if stored := store.read(manifest_key(entry.revision)):
            store.delete(manifest_key(entry.revision))
            removed.append((entry, stored))
    (_, in_use), left = _in_use(store), read_left(store)
    gone = []
    for entry, stored in removed:
        key, revision = manifest_key(entry.revision), entry.revision
        was_used = left.get(revision, entry.used_at) > entry.used_at
        if revision not in in_use and not was_used:
            gone.append(entry)
        elif store.look(key) is None:
            store.put(key, stored.data)
    return gone


def _delete_unless_new(store: Store, bundle: Listed) -> bool:
    """
    Delete a bundle and return true, unless a publish has just written it again.
    """
    now = store.look(bundle.key)
    if now is None or now.modified_at > bundle.modified_at:
        return False
    store.delete(bundle.key)
    return True


def _loose(
    bundles: Sequence[Listed],
    staying: Sequence[CatalogEntry],
    going: Sequence[CatalogEntry],
    now: datetime,
) -> list[Listed]:
    """
    Return the bundles that no release names: of those that go, and old ones of killed publishes.

    Where a release that stays does not say which bundle is its own, the old ones stay too.
    """
    named = {bundle_key(entry.summary.bundle_sha256) for entry in staying if entry.summary}
    released = {bundle_key(entry.summary.bundle_sha256) for entry in going if entry.summary}
    is_known = all(entry.summary for entry in staying)
    oldest = now - timedelta(seconds=UPLOAD_SECONDS)
    return [
        bundle
        for bundle in bundles
        if bundle.key not in named
        and (bundle.key in released or (is_known and bundle.modified_at < oldest))
    ]
