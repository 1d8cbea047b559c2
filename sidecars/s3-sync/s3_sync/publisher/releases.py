"""
The commands that list, compare, keep and remove releases.

Prune removes the manifest first, so that no release is ever without its bundle.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from s3_sync.digest import short
from s3_sync.publisher import catalog
from s3_sync.publisher.folder import make_rules
from s3_sync.publisher.parcel import build_parcel, scratch
from s3_sync.publisher.report import (
    Progress,
    Report,
    compare,
    size_text,
    table,
)
from s3_sync.publisher.store import Listed, Store
from s3_sync.release import format as form

HEAD = ("REVISION", "CREATED", "BY", "COMMIT", "FILES", "SIZE", "DAGS", "STATE", "MESSAGE")
MESSAGE_CHARACTERS = 48


def releases(store: Store, trust: catalog.Trust, limit: int) -> Report:
    """
    List the existing releases, the current one first.

    Args:
        limit: How many at most; 0: all.
    """
    current = catalog.look_at_pointer(store, trust)
    pointer = current.pointer if current else None
    pins, found = catalog.read_pins(store), catalog.list_releases(store)
    if pointer is not None:
        found.sort(key=lambda entry: entry.revision != pointer.revision)
    entries = catalog.read_manifests(store, found[:limit] if limit else found)
    rows = [_facts(entry, pointer, pins) for entry in entries]
    older = len(found) - len(rows)
    facts = {
        "url": store.url,
        "current": pointer.revision if pointer else None,
        "turn": pointer.turn.facts() if pointer else None,
        "history": [turn.facts() for turn in pointer.history] if pointer else [],
        "releases": rows,
        "older": older,
        "refused": current.refusal if current else "",
        "signed_by": current.signed_by if current else "",
    }
    lines = table([HEAD, *map(_row, rows)]) if rows else [f"{store.url} has no releases yet."]
    if pointer and (place := pointer.turn.promoted_from):
        lines.append(f"{short(pointer.revision)} was promoted from {place}")
    if older:
        lines.append(f"and {older} older releases; --limit 0 lists all")
    if current and current.refusal:
        lines.append(f"{form.POINTER_KEY} is refused: {current.refusal}")
    return Report(lines, facts)


def _facts(
    entry: catalog.CatalogEntry, pointer: form.Pointer | None, pins: Collection[str]
) -> dict[str, Any]:
    """
    Return what is known of a release, and its state, such as ``current`` or ``pinned``.
    """
    revision, manifest = entry.revision, entry.manifest
    before = pointer.previous if pointer else None
    states = {
        "current": pointer is not None and revision == pointer.revision,
        "previous": before is not None and revision == before.revision,
        "pinned": revision in pins,
        entry.problem: bool(entry.problem),
    }
    facts = {
        "revision": revision,
        "used_at": form.time_text(entry.used_at),
        "state": [name for name, is_so in states.items() if is_so],
    }
    if manifest is None:
        return facts
    return facts | {
        "created_at": form.time_text(manifest.created_at),
        "files": len(manifest.files),
        "size_bytes": manifest.size_bytes,
        "origin": manifest.origin._asdict(),
        "airflow": manifest.checked.facts() if manifest.checked else None,
    }


def _row(facts: dict[str, Any]) -> tuple[str, ...]:
    origin, checked = form.Origin(**facts.get("origin", {})), facts.get("airflow")
    commit, _, dirty = origin.commit.partition("-")
    return (
        short(facts["revision"]),
        facts.get("created_at", facts["used_at"]),
        origin.by,
        commit[:12] + (f"-{dirty}" if dirty else ""),
        str(facts.get("files", "")),
        size_text(facts["size_bytes"]) if "size_bytes" in facts else "",
        f"{len(checked['dag_ids'])} ({checked['version']})" if checked else "",
        ", ".join(facts["state"]),
        origin.message.partition("\n")[0][:MESSAGE_CHARACTERS],
    )


def diff(stores: Sequence[Store], trust: catalog.Trust, texts: Sequence[str]) -> Report:
    """
    List the files that differ between two releases, or between a folder and a release.

    Args:
        stores: The place of each.
        texts: Each is a folder, a URL, ``current``, ``previous`` or a revision.
    """
    (name, before), (other, after) = (
        _find(store, trust, text) for store, text in zip(stores, texts, strict=True)
    )
    changes = compare(before, after)
    facts = {"before": name, "after": other, **changes.facts()}
    return Report([f"{short(name)} → {short(other)}: {changes.files}", *changes.lines()], facts)


def _find(store: Store, trust: catalog.Trust, text: str) -> tuple[str, form.Manifest]:
    """
    Return the content that an argument names.
    """
    if is_url(text):
        text = "current"
    elif "/" in text or text in (".", ".."):
        with scratch("diff") as place:
            now, rules = datetime.now(UTC), make_rules(text, ())
            parcel, _ = build_parcel(text, rules, place, form.Origin(), now, Progress())
        return text, parcel.manifest
    if text in ("current", "previous"):
        revision = catalog.turn_of(store, catalog.read_current(store, trust), text).revision
    else:
        revision = catalog.resolve(store, text)
    return revision, catalog.read_manifest(store, revision)[0]


def is_url(text: str) -> bool:
    return text.lower().startswith("s3://")


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
    entries: Sequence[catalog.CatalogEntry], spared: Collection[str], keep: Keep, now: datetime
) -> list[catalog.CatalogEntry]:
    """
    Return the releases to remove.

    Args:
        entries: All releases, the most recently used first.
        spared: Revisions that are in use or pinned.
    """
    youngest = now - max(catalog.DAY, timedelta(seconds=keep.seconds))
    return [
        entry
        for entry in entries[keep.newest :]
        if entry.revision not in spared
        and entry.revision not in keep.names
        and entry.used_at < youngest
    ]


def prune(
    store: Store, trust: catalog.Trust, keep: Keep, unmatched: int, *, is_dry: bool
) -> Report:
    """
    Remove old releases, and bundles that no release names.

    If it is killed, every release that has a manifest is whole; the next prune removes the rest.

    Args:
        unmatched: How many of the given names match no release.

    Raises:
        ReleaseError: Releases exist, but none is current; nothing is removed.
    """
    now, bundles = store.now(), list(store.list(form.BUNDLE_FOLDER))
    entries = catalog.list_releases(store)
    going = choose(entries, _in_use(store, trust), keep, now) if entries else []
    if not is_dry:
        going = [
            entry
            for entry in going
            if entry.revision not in _in_use(store, trust)
            and _remove(store, form.manifest_key(entry.revision))
        ]
    names = {entry.revision for entry in going}
    left = [entry for entry in catalog.list_releases(store) if entry.revision not in names]
    staying = catalog.read_manifests(store, left)
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
    lines = [f"{verb} {short(e.revision)}, last used {form.time_text(e.used_at)}" for e in going]
    if unmatched:
        lines.append(f"Lines of --keep-from that match no release: {unmatched}")
    lines.append(
        f"{verb} from {store.url}: releases {len(going)}, bundles {len(loose)} "
        f"({size_text(freed)}); releases kept: {len(staying)}"
    )
    return Report(lines, facts)


def _in_use(store: Store, trust: catalog.Trust) -> set[str]:
    """
    Return the current release, the target of a rollback, and pinned ones.

    Raises:
        ReleaseError: No release is current.
    """
    current = catalog.read_current(store, trust)
    if current is None or current.pointer is None:
        raise catalog.ReleaseError(
            "release_missing",
            f"{store.url}{form.POINTER_KEY} does not exist, so the release in use is unknown",
            "Nothing more was removed. Publish first.",
        )
    previous = current.pointer.previous
    return {
        current.pointer.revision,
        *([previous.revision] if previous else []),
        *catalog.read_pins(store),
    }


def _remove(store: Store, key: str) -> bool:
    """
    Remove an object, unless it is gone or was written again within the last day.
    """
    found = store.look(key)
    if found is None or store.age_of(found) < catalog.DAY:
        return False
    store.delete(key)
    return True


def _loose(
    bundles: Sequence[Listed], staying: Sequence[catalog.CatalogEntry], now: datetime
) -> list[Listed]:
    """
    Return the old bundles that no release names; none while a manifest is unknown.
    """
    if not all(entry.manifest for entry in staying):
        return []
    named = {form.bundle_key(entry.manifest.bundle_sha256) for entry in staying if entry.manifest}
    return [
        bundle
        for bundle in bundles
        if bundle.key not in named and bundle.modified_at < now - catalog.DAY
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
        raise catalog.RevisionError(
            "release_unknown", f"cannot read --keep-from {path!r}: {error}"
        ) from error
    names = [name for line in text.splitlines() if (name := line.strip())]
    if not names:
        raise catalog.RevisionError(
            "release_unknown", f"--keep-from {path!r} contains no release; omit it to keep none"
        )
    found, unmatched = set(), 0
    for name in names:
        try:
            found.add(find(name))
        except catalog.RevisionError:  # such as a commit, of runs from before a move to releases
            unmatched += 1
    return found, unmatched


def pin(store: Store, name: str) -> Report:
    """
    Protect a release from pruning until it is unpinned.
    """
    revision = catalog.resolve(store, name)
    catalog.read_manifest(store, revision)
    store.put(form.pin_key(revision), b"")
    catalog.read_manifest(store, revision)  # a prune may have removed it meanwhile
    facts = {"result": "pinned", "url": store.url, "revision": revision}
    return Report([f"Pinned {revision} in {store.url}: it will not be pruned"], facts)


def unpin(store: Store, name: str) -> Report:
    """
    Allow a pinned release to be pruned again.
    """
    revision = catalog.resolve(store, name, form.PIN_FOLDER)
    store.delete(form.pin_key(revision))
    facts = {"result": "unpinned", "url": store.url, "revision": revision}
    return Report([f"Unpinned {short(revision)} in {store.url}"], facts)
