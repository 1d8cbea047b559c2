"""
The report of ``s3-sync releases``.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from s3_sync.publisher.catalog import CatalogEntry
from s3_sync.publisher.report import Report, size_text, table
from s3_sync.release.facts import checked_facts, time_text
from s3_sync.release.pointer import Pointer, Turn
from s3_sync.revision import short

HEAD = ("REVISION", "CREATED", "BY", "COMMIT", "FILES", "SIZE", "DAGS", "STATE", "MESSAGE")
MESSAGE_CHARACTERS = 48


def releases_report(
    url: str,
    entries: Sequence[CatalogEntry],
    older: int,
    pointer: Pointer | None,
    pins: Collection[str],
) -> Report:
    """
    Return the table of releases.

    Args:
        older: How many older releases are not in the table.
    """
    facts = {
        "url": url,
        "current": pointer.revision if pointer else None,
        "sequence": pointer.turn.sequence if pointer else None,
        "published_at": time_text(pointer.turn.since) if pointer else None,
        "promoted_from": pointer.turn.promoted_from or None if pointer else None,
        "history": [_turn_facts(turn) for turn in pointer.history] if pointer else [],
        "releases": [_facts(entry, pointer, pins) for entry in entries],
        "older": older,
    }
    if not entries:
        return Report([f"{url} has no releases yet."], facts)
    lines = table([HEAD, *(_row(entry, pointer, pins) for entry in entries)])
    if pointer and (place := pointer.turn.promoted_from):
        lines.append(f"{short(pointer.revision)} was promoted from {place}")
    if older:
        lines.append(f"and {older} older releases; --limit 0 lists all")
    return Report(lines, facts)


def _turn_facts(turn: Turn) -> dict[str, Any]:
    return {
        "revision": turn.revision,
        "sequence": turn.sequence,
        "since": time_text(turn.since),
        "restores": turn.restores or None,
        "promoted_from": turn.promoted_from or None,
    }


def _facts(entry: CatalogEntry, pointer: Pointer | None, pins: Collection[str]) -> dict[str, Any]:
    facts: dict[str, Any] = {"revision": entry.revision, "state": _state(entry, pointer, pins)}
    if entry.summary:
        facts |= {
            "created_at": time_text(entry.summary.created_at),
            "files": entry.summary.files,
            "size_bytes": entry.summary.size_bytes,
            "origin": entry.summary.origin._asdict(),
            "airflow": checked_facts(checked) if (checked := entry.summary.checked) else None,
        }
        if entry.summary.signed_by or entry.refusal:
            facts |= {
                "signed_by": entry.summary.signed_by or None,
                "refused": entry.refusal or None,
            }
    return facts


def _row(entry: CatalogEntry, pointer: Pointer | None, pins: Collection[str]) -> tuple[str, ...]:
    state = ", ".join(_state(entry, pointer, pins))
    summary = entry.summary
    if summary is None:
        unknown = [""] * 5
        problem = entry.unread or "damaged"
        return (short(entry.revision), time_text(entry.used_at), *unknown, state, problem)
    commit, _, dirty = summary.origin.commit.partition("-")
    return (
        short(entry.revision),
        time_text(summary.created_at),
        summary.origin.by,
        commit[:12] + (f"-{dirty}" if dirty else ""),
        str(summary.files),
        size_text(summary.size_bytes),
        f"{summary.checked.dags} ({summary.checked.airflow})" if summary.checked else "",
        state,
        summary.origin.message.partition("\n")[0][:MESSAGE_CHARACTERS],
    )


def _state(entry: CatalogEntry, pointer: Pointer | None, pins: Collection[str]) -> list[str]:
    """
    Return the states of a release, such as ``current`` or ``pinned``.
    """
    states = []
    if pointer and entry.revision == pointer.revision:
        states.append("current")
    if pointer and pointer.previous and pointer.previous.revision == entry.revision:
        states.append("previous")
    if entry.revision in pins:
        states.append("pinned")
    if entry.refusal:
        states.append("untrusted")
    return states
