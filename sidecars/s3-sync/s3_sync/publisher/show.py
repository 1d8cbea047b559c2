"""
The commands that only read: releases, diff.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any

from s3_sync.publisher.catalog import (
    Entry,
    Trust,
    list_releases,
    look_at_pointer,
    read_current,
    read_manifest,
    read_manifests,
    read_pins,
    resolve,
    turn_of,
)
from s3_sync.publisher.folder import make_rules
from s3_sync.publisher.parcel import build_parcel, scratch
from s3_sync.publisher.report import (
    Progress,
    Report,
    checked_facts,
    compare,
    size_text,
    table,
    turn_facts,
)
from s3_sync.publisher.store import Store
from s3_sync.release.format import POINTER_KEY, Manifest, Origin, Pointer, time_text
from s3_sync.revision import short

HEAD = ("REVISION", "CREATED", "BY", "COMMIT", "FILES", "SIZE", "DAGS", "STATE", "MESSAGE")
MESSAGE_CHARACTERS = 48


def releases(store: Store, trust: Trust, limit: int) -> Report:
    """
    List the existing releases, the current one first.

    Args:
        limit: How many at most; 0: all.
    """
    current = look_at_pointer(store, trust)
    pointer = current.pointer if current else None
    found = list_releases(store)
    if pointer is not None:
        found.sort(key=lambda entry: entry.revision != pointer.revision)
    entries = read_manifests(store, found[:limit] if limit else found)
    pins, older = read_pins(store), len(found) - len(entries)
    facts = {
        "url": store.url,
        "current": pointer.revision if pointer else None,
        "sequence": pointer.turn.sequence if pointer else None,
        "published_at": time_text(pointer.turn.since) if pointer else None,
        "promoted_from": pointer.turn.promoted_from or None if pointer else None,
        "history": list(map(turn_facts, pointer.history)) if pointer else [],
        "releases": [_facts(entry, pointer, pins) for entry in entries],
        "older": older,
        "refused": current.refusal or None if current else None,
        "signed_by": current.signed_by or None if current else None,
    }
    lines = [f"{store.url} has no releases yet."]
    if entries:
        lines = table([HEAD, *(_row(entry, pointer, pins) for entry in entries)])
    if pointer and (place := pointer.turn.promoted_from):
        lines.append(f"{short(pointer.revision)} was promoted from {place}")
    if older:
        lines.append(f"and {older} older releases; --limit 0 lists all")
    if current and current.refusal:
        lines.append(f"{POINTER_KEY} is refused: {current.refusal}")
    return Report(lines, facts)


def diff(stores: Sequence[Store], trust: Trust, texts: Sequence[str]) -> Report:
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


def _find(store: Store, trust: Trust, text: str) -> tuple[str, Manifest]:
    """
    Return the content that an argument names.
    """
    if is_url(text):
        text = "current"
    elif "/" in text or text in (".", ".."):
        with scratch("diff") as place:
            now, rules = datetime.now(UTC), make_rules(text, ())
            parcel, _ = build_parcel(text, rules, place, Origin(), now, Progress())
        return text, parcel.manifest
    if text in ("current", "previous"):
        revision = turn_of(store, read_current(store, trust), text).revision
    else:
        revision = resolve(store, text)
    return revision, read_manifest(store, revision)[0]


def is_url(text: str) -> bool:
    return text.lower().startswith("s3://")


def _facts(entry: Entry, pointer: Pointer | None, pins: Collection[str]) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "revision": entry.revision,
        "state": _state(entry, pointer, pins),
        "used_at": time_text(entry.used_at),
    }
    if manifest := entry.manifest:
        facts |= {
            "created_at": time_text(manifest.created_at),
            "files": len(manifest.files),
            "size_bytes": manifest.size_bytes,
            "origin": manifest.origin._asdict(),
            "airflow": checked_facts(manifest.checked),
        }
    return facts


def _row(entry: Entry, pointer: Pointer | None, pins: Collection[str]) -> tuple[str, ...]:
    state = ", ".join(_state(entry, pointer, pins))
    manifest = entry.manifest
    if manifest is None:
        unknown = [""] * 5
        return (short(entry.revision), time_text(entry.used_at), *unknown, state, entry.problem)
    origin, checked = manifest.origin, manifest.checked
    commit, _, dirty = origin.commit.partition("-")
    return (
        short(entry.revision),
        time_text(manifest.created_at),
        origin.by,
        commit[:12] + (f"-{dirty}" if dirty else ""),
        str(len(manifest.files)),
        size_text(manifest.size_bytes),
        f"{len(checked.dag_ids)} ({checked.airflow})" if checked else "",
        state,
        origin.message.partition("\n")[0][:MESSAGE_CHARACTERS],
    )


def _state(entry: Entry, pointer: Pointer | None, pins: Collection[str]) -> list[str]:
    """
    Return the states of a release, such as ``current`` or ``pinned``.
    """
    previous = pointer.previous if pointer else None
    states = {
        "current": pointer is not None and entry.revision == pointer.revision,
        "previous": previous is not None and entry.revision == previous.revision,
        "pinned": entry.revision in pins,
    }
    return [name for name, is_so in states.items() if is_so]
