"""
The commands that keep and remove releases: pin, unpin, prune-releases.

Prune removes the manifest first, so that no release is ever without its bundle.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from s3_sync.publisher.catalog import (
    Entry,
    ReleaseError,
    RevisionError,
    Trust,
    list_releases,
    read_current,
    read_manifest,
    read_manifests,
    read_pins,
    resolve,
)
from s3_sync.publisher.report import Report, size_text
from s3_sync.publisher.store import Listed, Store
from s3_sync.publisher.swap import DAY
from s3_sync.release.format import (
    BUNDLE_FOLDER,
    PIN_FOLDER,
    POINTER_KEY,
    Origin,
    bundle_key,
    manifest_key,
    pin_key,
    time_text,
)
from s3_sync.revision import short


class Keep(NamedTuple):
    """
    Which releases a prune keeps, besides those in use, pinned ones and those of the last day.

    Args:
        names: Revisions to keep whatever their age.
        newest: How many of the most recently used.
        seconds: Those that were current within this time.
    """

    names: frozenset[str]
    newest: int
    seconds: float


def choose(
    entries: Sequence[Entry], spared: Collection[str], keep: Keep, now: datetime
) -> list[Entry]:
    """
    Return the releases to remove.

    Args:
        entries: All releases, the most recently used first.
        spared: Revisions that are in use or pinned.
    """
    youngest = now - max(DAY, timedelta(seconds=keep.seconds))
    return [
        entry
        for entry in entries[keep.newest :]
        if entry.revision not in spared
        and entry.revision not in keep.names
        and entry.used_at < youngest
    ]


def prune(store: Store, trust: Trust, keep: Keep, unmatched: int, *, is_dry: bool) -> Report:
    """
    Remove old releases, and bundles that no release names.

    If it is killed, every release that has a manifest is whole; the next prune removes the rest.

    Args:
        unmatched: How many of the given names match no release.

    Raises:
        ReleaseError: Releases exist, but none is current; nothing is removed.
    """
    now, bundles, entries = store.now(), list(store.list(BUNDLE_FOLDER)), list_releases(store)
    going = choose(entries, _in_use(store, trust), keep, now) if entries else []
    names = {entry.revision for entry in going}
    staying = read_manifests(store, [e for e in entries if e.revision not in names])
    if not is_dry:
        going = [
            entry
            for entry in going
            if entry.revision not in _in_use(store, trust)
            and _remove(store, manifest_key(entry.revision))
        ]
        staying = read_manifests(store, list_releases(store))
    loose = _loose(bundles, staying, now)
    if not is_dry:
        loose = [bundle for bundle in loose if _remove(store, bundle.key)]
    freed = sum(bundle.size_bytes for bundle in loose)
    facts = {
        "result": "planned" if is_dry else "pruned",
        "url": store.url,
        "removed": [entry.revision for entry in going],
        "kept": [entry.revision for entry in staying],
        "bundles": len(loose),
        "freed_bytes": freed,
    }
    verb = "Would remove" if is_dry else "Removed"
    lines = [f"{verb} {short(e.revision)}, last used {time_text(e.used_at)}" for e in going]
    if unmatched:
        lines.append(f"Lines of --keep-from that match no release: {unmatched}")
    lines.append(
        f"{verb} from {store.url}: releases {len(going)}, bundles {len(loose)} "
        f"({size_text(freed)}); releases kept: {len(staying)}"
    )
    return Report(lines, facts)


def _in_use(store: Store, trust: Trust) -> set[str]:
    """
    Return the current release, the target of a rollback, and pinned ones.

    Raises:
        ReleaseError: No release is current.
    """
    current = read_current(store, trust)
    if current is None or current.pointer is None:
        raise ReleaseError(
            "release_missing",
            f"{store.url}{POINTER_KEY} does not exist, so the release in use is unknown",
            "Nothing more was removed. Publish first.",
        )
    previous = current.pointer.previous
    return {
        current.pointer.revision,
        *([previous.revision] if previous else []),
        *read_pins(store),
    }


def _remove(store: Store, key: str) -> bool:
    """
    Remove an object, unless it is gone or was written again within the last day.
    """
    found = store.look(key)
    if found is None or store.age_of(found) < DAY:
        return False
    store.delete(key)
    return True


def _loose(bundles: Sequence[Listed], staying: Sequence[Entry], now: datetime) -> list[Listed]:
    """
    Return the old bundles that no release names; none while a manifest is unknown.
    """
    if not all(entry.manifest for entry in staying):
        return []
    named = {bundle_key(entry.manifest.bundle_sha256) for entry in staying if entry.manifest}
    return [
        bundle for bundle in bundles if bundle.key not in named and bundle.modified_at < now - DAY
    ]


def read_names(path: str | None, find: Callable[[str], str]) -> tuple[set[str], int]:
    """
    Return the revisions in a file, one per line, and how many lines match no release; ``-`` is
    standard input.

    Raises:
        RevisionError: It cannot be read, or contains none: more likely, the program that wrote it
            has failed than that no release is needed.
    """
    if path is None:
        return set(), 0
    try:
        # Python has no sys.stdin if the caller has closed the descriptor.
        text = Path("/dev/stdin" if path == "-" else path).read_text()
    except (OSError, ValueError) as error:
        raise RevisionError(
            "release_unknown", f"cannot read --keep-from {path!r}: {error}"
        ) from error
    names = [name for line in text.splitlines() if (name := line.strip())]
    if not names:
        raise RevisionError(
            "release_unknown", f"--keep-from {path!r} contains no release; omit it to keep none"
        )
    found, unmatched = set(), 0
    for name in names:
        try:
            found.add(find(name))
        except RevisionError:  # such as a commit, of runs from before a move to releases
            unmatched += 1
    return found, unmatched


def pin(store: Store, name: str, who: Origin) -> Report:
    """
    Protect a release from pruning until it is unpinned.
    """
    revision = resolve(store, name)
    read_manifest(store, revision)
    note = {"pinned_at": time_text(store.now()), "pinned_by": who.by}
    store.put(pin_key(revision), json.dumps(note).encode() + b"\n")
    read_manifest(store, revision)  # a prune may have removed it meanwhile
    facts = {"result": "pinned", "url": store.url, "revision": revision}
    return Report([f"Pinned {revision} in {store.url}: it will not be pruned"], facts)


def unpin(store: Store, name: str) -> Report:
    """
    Allow a pinned release to be pruned again.
    """
    revision = resolve(store, name, PIN_FOLDER)
    facts = {"result": "unpinned", "url": store.url, "revision": revision}
    if revision not in read_pins(store):
        return Report(
            [f"Unchanged: {short(revision)} is not pinned"], facts | {"result": "unchanged"}
        )
    store.delete(pin_key(revision))
    return Report([f"Unpinned {short(revision)} in {store.url}"], facts)
