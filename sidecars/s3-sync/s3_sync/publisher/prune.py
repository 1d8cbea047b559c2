"""
Removes old releases, the manifest first, so that no release is ever without its bundle.
"""

from __future__ import annotations

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
    read_marks,
    read_pins,
    summarise,
)
from s3_sync.publisher.store import Listed, Store, Stored
from s3_sync.release.names import BUNDLE_FOLDER, POINTER_KEY, bundle_key, left_key, manifest_key
from s3_sync.s3.refusals import SealedError

# No publish or rollback takes longer; a younger object may belong to one that is still running.
UPLOAD_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Pruned:
    """
    The result of a prune, or of a dry run.

    Args:
        bundles: The number of removed bundles, including those that no release named.
        freed_bytes: The size of these bundles.
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
    Return the releases to remove: not spared, not among the last `keep_count`, not used recently.

    Args:
        entries: All releases, the most recently used first.
        spared: Revisions to keep whatever their age.
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

    If it is killed, every release that has a manifest is whole; the next prune removes the rest.

    Args:
        keep: More revisions to keep.

    Raises:
        ReleaseError: Releases exist, but none is current; nothing is removed.
    """
    now = store.now()
    # Before the manifests: a publish writes the bundle first.
    bundles = list(store.list(BUNDLE_FOLDER))
    # Before the marks: a release that is replaced after this has a mark.
    current, in_use, _ = _in_use(store, now, is_first=True)
    entries = list_releases(store, current)
    if entries and not current:
        raise ReleaseError(
            "release_missing",
            f"{store.url}{POINTER_KEY} does not exist, so the release in use is unknown",
            "Nothing was removed. Publish first.",
        )
    going = choose(entries, in_use.union(keep), keep_count, keep_for_seconds, now)
    gone = {entry.revision for entry in going}
    staying = summarise(store, [entry for entry in entries if entry.revision not in gone])
    going = summarise(store, going)
    if not is_dry:
        going = _remove(store, going, now)
        staying = summarise(store, list_releases(store))
    loose = _loose(bundles, staying, going, now)
    if not is_dry:
        loose = [bundle for bundle in loose if _delete_unless_new(store, bundle)]
        marked = read_marks(store).keys()
        for revision in marked - {entry.revision for entry in list_releases(store)}:
            store.delete(left_key(revision))
    return Pruned(tuple(going), tuple(staying), len(loose), sum(b.size_bytes for b in loose))


def read_names(path: str | None) -> list[str]:
    """
    Return the revisions in a file, one per line; ``-`` is standard input.

    Raises:
        RevisionError: It cannot be read, or contains none: more likely, the program that wrote it
            has failed than that no release is needed.
    """
    if path is None:
        return []
    try:
        # Python has no sys.stdin if the caller has closed the descriptor.
        text = Path("/dev/stdin" if path == "-" else path).read_text()
    except (OSError, ValueError) as error:
        raise RevisionError(
            "release_unknown", f"cannot read --keep-from {path!r}: {error}"
        ) from error
    if names := [name for line in text.splitlines() if (name := line.strip())]:
        return names
    raise RevisionError(
        "release_unknown", f"--keep-from {path!r} contains no release; omit it to keep none"
    )


def _in_use(
    store: Store, now: datetime, *, is_first: bool = False
) -> tuple[str, set[str], dict[str, Listed]]:
    """
    Return the current revision, or ""; the revisions to keep: the current one, the target of a
    rollback, pinned ones and those about to become current; and the marks, read after the pointer.

    Args:
        is_first: Whether nothing was removed yet, so that it can still be stopped.
    """
    current = read_current(store)
    if current is not None and is_first:
        check_not_replayed(current)
    marks, youngest = read_marks(store), now - timedelta(seconds=UPLOAD_SECONDS)
    coming = {name for name, m in marks.items() if m.size_bytes and m.modified_at > youngest}
    spared = read_pins(store) | coming
    pointer = current.trusted if current else None
    if pointer is None:
        return "", spared, marks
    previous = {pointer.previous.revision} if pointer.previous else set()
    return pointer.revision, {pointer.revision, *previous, *spared}, marks


def _remove(store: Store, going: Sequence[CatalogEntry], now: datetime) -> list[CatalogEntry]:
    """
    Delete manifests and return their releases; restore those that came into use meanwhile.
    """
    removed: list[tuple[CatalogEntry, Stored]] = []
    for entry in going:
        key = manifest_key(entry.revision)
        try:
            stored = store.read(key)
        except SealedError:
            stored = Stored(b"", "")  # nobody could read a copy either
        if stored:
            store.delete(key)
            removed.append((entry, stored))
    _, in_use, marks = _in_use(store, now)
    gone = []
    for entry, stored in removed:
        key, revision = manifest_key(entry.revision), entry.revision
        mark = marks.get(revision)
        was_used = mark is not None and mark.modified_at > entry.used_at
        if revision not in in_use and not was_used:
            gone.append(entry)
        elif stored.data and store.look(key) is None:
            store.put(key, stored.data)
    return gone


def _delete_unless_new(store: Store, bundle: Listed) -> bool:
    """
    Delete a bundle and return True, unless a publish has just written it again.
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
    Return the old bundles that no release needs: those of removed releases and killed publishes.

    If the bundle of a remaining release is unknown, the bundles of killed publishes stay.
    """
    named = {bundle_key(entry.summary.bundle_sha256) for entry in staying if entry.summary}
    released = {bundle_key(entry.summary.bundle_sha256) for entry in going if entry.summary}
    is_known = all(entry.summary for entry in staying)
    oldest = now - timedelta(seconds=UPLOAD_SECONDS)
    return [
        bundle
        for bundle in bundles
        if bundle.key not in named
        and bundle.modified_at < oldest
        and (is_known or bundle.key in released)
    ]
