"""
Parses and serializes the pointer to the current release, ``current.json``. Pure.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, NamedTuple

from s3_sync.release.facts import (
    FORMAT,
    TEXT_LIMIT_CHARACTERS,
    Origin,
    get,
    origin_facts,
    read_facts,
    read_origin,
    read_revision,
    read_sha256,
    read_size,
    read_text,
    read_time,
    time_text,
)
from s3_sync.release.manifest import MANIFEST_LIMIT_BYTES
from s3_sync.release.rows import Invalid
from s3_sync.signature import split_line

POINTER_LIMIT_BYTES = 64 << 10
HISTORY_LIMIT = 20
# Of each place in the history: with the longest texts, a pointer must stay below its limit.
PLACE_LIMIT_CHARACTERS = 90
# The largest integer that every JSON parser keeps exactly.
SEQUENCE_LIMIT = (1 << 53) - 1


class Turn(NamedTuple):
    """
    A period during which a release was current.

    Args:
        sequence: The sequence of its pointer, higher than that of the pointer before.
        since: When it became current.
        restores: After a rollback, the sequence of the restored turn; 0 after a publish.
        promoted_from: The place from which it was promoted, as ``s3://bucket/prefix/``; or empty.
            For people only.
    """

    revision: str
    sequence: int
    since: datetime
    restores: int = 0
    promoted_from: str = ""


class Pointer(NamedTuple):
    """
    The pointer to the current release: ``current.json``.

    Args:
        turn: The current turn.
        manifest_bytes: The size of the manifest.
        head_bytes: The offset of its chunks.
        origin: The origin of this publish or rollback.
        history: Earlier turns, newest first.
        manifest_sha256: Of the first two lines of the manifest; empty if it is not signed.
    """

    turn: Turn
    manifest_bytes: int
    head_bytes: int
    origin: Origin
    history: tuple[Turn, ...] = ()
    manifest_sha256: str = ""

    @property
    def revision(self) -> str:
        return self.turn.revision

    @property
    def previous(self) -> Turn | None:
        """
        The turn to which a rollback returns, if any.
        """
        return next(iter(self.earlier()), None)

    def earlier(self) -> list[Turn]:
        """
        Return the turns before the current release was published, newest first. After a rollback,
        they continue from the restored turn: a release that was just left is not restored.
        """
        by_sequence = {one.sequence: one for one in self.history}
        turn: Turn | None = self.turn
        while turn is not None:
            sequence = turn.restores or turn.sequence
            turn = by_sequence.get(turn.restores)
        return [one for one in self.history if one.sequence < sequence]

    def turns(self) -> tuple[Turn, ...]:
        """
        Return the history for the next pointer.
        """
        return (self.turn, *self.history)[:HISTORY_LIMIT]


def serialize_pointer(pointer: Pointer) -> bytes:
    sizes = {"size_bytes": pointer.manifest_bytes, "head_bytes": pointer.head_bytes}
    digest = {"sha256": pointer.manifest_sha256} if pointer.manifest_sha256 else {}
    facts = {
        "format": FORMAT,
        **_turn_facts(pointer.turn),
        "manifest": {**sizes, **digest},
        "published_by": pointer.origin.by[:TEXT_LIMIT_CHARACTERS],
        **origin_facts(pointer.origin),
        "history": [_turn_facts(turn) for turn in pointer.history[:HISTORY_LIMIT]],
    }
    return json.dumps(facts, indent=2).encode() + b"\n"


def parse_pointer(data: bytes) -> Pointer:
    """
    Parse a pointer, signed or unsigned; the signature is not verified.

    Raises:
        Invalid: It is not a pointer; the text says why.
    """
    if len(data) > POINTER_LIMIT_BYTES:
        raise Invalid(f"it has {len(data)} bytes; the limit is {POINTER_LIMIT_BYTES}")
    facts = read_facts(split_pointer(data)[0])
    manifest = get(facts, "manifest", dict)
    size_bytes = read_size(manifest, "manifest.size_bytes", MANIFEST_LIMIT_BYTES)
    pointer = Pointer(
        _read_turn(facts),
        size_bytes,
        read_size(manifest, "manifest.head_bytes", size_bytes),
        read_origin(facts, "published_by"),
        tuple(map(_read_turn, get(facts, "history", list))),
        read_sha256(manifest, "manifest.sha256") if "sha256" in manifest else "",
    )
    turns = [pointer.turn.sequence, *(turn.sequence for turn in pointer.history)]
    if len(pointer.history) > HISTORY_LIMIT or turns != sorted(set(turns), reverse=True):
        raise Invalid("history is not a list of at most 20 turns, newest first")
    return pointer


def split_pointer(data: bytes) -> tuple[bytes, str]:
    """
    Return the JSON of a pointer, and its signature; "" if it has none.
    """
    at = data.rfind(b"\n", 0, -1) + 1
    signature, end = split_line(data, at)
    return (data[:at], signature) if signature and end == len(data) else (data, "")


def _turn_facts(turn: Turn) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "revision": turn.revision,
        "sequence": turn.sequence,
        "since": time_text(turn.since),
    }
    more = {"restores": turn.restores, "promoted_from": turn.promoted_from[:PLACE_LIMIT_CHARACTERS]}
    return facts | {name: found for name, found in more.items() if found}


def _read_turn(facts: Any) -> Turn:
    if not isinstance(facts, dict):
        raise Invalid("a turn is not a JSON object")
    sequence = read_size(facts, "sequence", SEQUENCE_LIMIT)
    restores = read_size(facts, "restores", sequence) if "restores" in facts else 0
    if restores == sequence:
        raise Invalid("a turn restores itself")
    revision, since = read_revision(facts), read_time(facts, "since")
    return Turn(revision, sequence, since, restores, read_text(facts, "promoted_from"))
