"""
The commands that list, compare, keep and remove releases.

Prune removes the manifest first, so that no release is ever without its bundle.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from s3_sync.digest import short
from s3_sync.publisher import catalog
from s3_sync.publisher.folder import build_parcel, make_rules, scratch
from s3_sync.publisher.store import Store
from s3_sync.release import format as form

HEAD = ("REVISION", "CREATED", "BY", "COMMIT", "FILES", "SIZE", "DAGS", "STATE", "MESSAGE")
MESSAGE_CHARACTERS = 48
MIB = 1 << 20


class Report(NamedTuple):
    """
    The answer of one command: lines for people, facts for programs.
    """

    lines: list[str]
    facts: dict[str, Any]


def size_text(size_bytes: int) -> str:
    """
    Return a size in a readable unit.
    """
    if size_bytes < 1 << 10:
        return f"{size_bytes} B"
    return f"{size_bytes / 1024:.1f} KiB" if size_bytes < MIB else f"{size_bytes / MIB:.1f} MiB"


# --- releases


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
    entries = catalog.with_manifests(store, found[:limit] if limit else found)
    rows = [_facts(entry, pointer, pins) for entry in entries]
    older = len(found) - len(rows)
    refusal = str(current.refusal or "") if current else ""
    facts = {
        "url": store.url,
        "current": pointer.revision if pointer else None,
        "turn": pointer.turn.facts() if pointer else None,
        "history": [turn.facts() for turn in pointer.history] if pointer else [],
        "releases": rows,
        "older": older,
        "refused": refusal,
        "signed_by": current.signed_by if current else "",
    }
    lines = _table([HEAD, *map(_row, rows)]) if rows else [f"{store.url} has no releases yet."]
    if pointer and (place := pointer.turn.promoted_from):
        lines.append(f"{short(pointer.revision)} was promoted from {place}")
    if older:
        lines.append(f"and {older} older releases; --limit 0 lists all")
    return Report([*lines, refusal] if refusal else lines, facts)


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
        "created_at": manifest.created_at,
        "files": len(manifest.files),
        "size_bytes": manifest.size_bytes,
        "origin": manifest.origin._asdict(),
        "airflow": manifest.checked._asdict() if manifest.checked else None,
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


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """
    Return rows as lines with aligned columns.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


# --- diff


class Changes(NamedTuple):
    """
    The files that differ between two releases: sorted, by kind of change.
    """

    added: Sequence[str]
    changed: Sequence[str]
    removed: Sequence[str]

    def lines(self, limit: int = 0) -> list[str]:
        """
        Return one line per name, at most `limit` of them; 0: all.
        """
        marks = zip("+~-", self, strict=True)
        lines = [f"  {mark} {name}" for mark, names in marks for name in names]
        if limit and len(lines) > limit:
            return [*lines[:limit], f"  and {len(lines) - limit} more"]
        return lines

    def __str__(self) -> str:
        return ", ".join(f"{len(names)} {kind}" for kind, names in self._asdict().items())


def compare(before: form.Manifest | None, after: form.Manifest) -> Changes:
    """
    Compare the files of two releases; every file is new if there is no release before.
    """
    old, new = before.files if before else {}, after.files
    changed = [path for path in new if path in old and old[path].etag != new[path].etag]
    return Changes(sorted(new.keys() - old.keys()), changed, sorted(old.keys() - new.keys()))


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
    facts = {"before": name, "after": other, "changes": changes._asdict()}
    return Report([f"{short(name)} → {short(other)}: {changes}", *changes.lines()], facts)


def _find(store: Store, trust: catalog.Trust, text: str) -> tuple[str, form.Manifest]:
    """
    Return the content that an argument names.
    """
    if is_url(text):
        text = "current"
    elif "/" in text or text in (".", ".."):
        with scratch("diff") as place:
            now, rules = datetime.now(UTC), make_rules(text, ())
            return text, build_parcel(text, rules, place, form.Origin(), now)[0].manifest
    if text in ("current", "previous"):
        revision = catalog.turn_of(store, catalog.read_current(store, trust), text).revision
    else:
        revision = catalog.resolve(store, text)
    return revision, catalog.read_manifest(store, revision)[0]


def is_url(text: str) -> bool:
    return text.lower().startswith("s3://")


# --- prune and pin


class Keep(NamedTuple):
    """
    Which releases a prune keeps, besides those in use, pinned ones and those of the last day.

    Args:
        names: Revisions to keep whatever their age.
        newest: How many of the most recently used.
        seconds: Those that were current within this time.
        unmatched: How many of the given names match no release.
    """

    names: Collection[str]
    newest: int
    seconds: float
    unmatched: int = 0


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


def prune(store: Store, trust: catalog.Trust, keep: Keep, *, is_dry: bool) -> Report:
    """
    Remove old releases, and bundles that no release names.

    If it is killed, every release that has a manifest is whole; the next prune removes the rest.

    Raises:
        ReleaseError: Releases exist, but none is current; nothing is removed.
    """
    bundles, entries = list(store.list(form.BUNDLE_FOLDER)), catalog.list_releases(store)
    now = store.now()
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
    staying = catalog.with_manifests(store, left)
    manifests = [entry.manifest for entry in staying if entry.manifest]
    named = {form.bundle_key(manifest.bundle_sha256) for manifest in manifests}
    # While a manifest is unknown, its bundle is, too.
    loose = [
        bundle
        for bundle in bundles
        if len(manifests) == len(staying)
        and bundle.key not in named
        and bundle.modified_at < now - catalog.DAY
        and (is_dry or _remove(store, bundle.key))
    ]
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
    if keep.unmatched:
        lines.append(f"Lines of --keep-from that match no release: {keep.unmatched}")
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
    pointer = current.pointer
    before = {pointer.previous.revision} if pointer.previous else set()
    return {pointer.revision, *before, *catalog.read_pins(store)}


def _remove(store: Store, key: str) -> bool:
    """
    Remove an object, unless it is gone or was written again within the last day.
    """
    found = store.look(key)
    if found is None or store.age_of(found) < catalog.DAY:
        return False
    store.delete(key)
    return True


def read_names(store: Store, path: str | None, names: Iterable[str]) -> tuple[set[str], int]:
    """
    Return the revisions of `--keep` and those in the file of `--keep-from`, one per line, and how
    many of its lines match no release; ``-`` is standard input.

    Raises:
        RevisionError: It cannot be read, or contains none: more likely, the program that wrote it
            has failed than that no release is needed.
    """
    found, unmatched = {catalog.resolve(store, name) for name in names}, 0
    if path is None:
        return found, 0
    try:
        # Python has no sys.stdin if the caller has closed the descriptor.
        lines = Path("/dev/stdin" if path == "-" else path).read_text().split()
    except (OSError, ValueError) as error:
        said = f"cannot read --keep-from {path!r}: {error}"
        raise catalog.RevisionError("release_unknown", said) from error
    if not lines:
        said = f"--keep-from {path!r} contains no release; omit it to keep none"
        raise catalog.RevisionError("release_unknown", said)
    for name in lines:
        try:
            found.add(catalog.resolve(store, name))
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
