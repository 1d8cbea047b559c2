"""
The pointer of a release, ``current.json``, from and to bytes. Pure.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime

from s3_sync.digest import is_revision
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
    read_time,
    time_text,
)
from s3_sync.release.manifest import MANIFEST_LIMIT_BYTES
from s3_sync.release.rows import Invalid

POINTER_LIMIT_BYTES = 64 << 10
HISTORY_LIMIT = 20


@dataclass(frozen=True, slots=True)
class Pointer:
    """
    What is current: ``current.json``.

    Args:
        manifest_sha256: Of the manifest's bytes.
        published_at: When it became current.
        origin: Of this publish or rollback.
        history: Revisions that were current before, newest first.
    """

    revision: str
    manifest_sha256: str
    manifest_bytes: int
    published_at: datetime
    origin: Origin
    history: tuple[str, ...] = ()


def serialise_pointer(pointer: Pointer) -> bytes:
    facts = {
        "format": FORMAT,
        "revision": pointer.revision,
        "manifest": {"sha256": pointer.manifest_sha256, "size_bytes": pointer.manifest_bytes},
        "published_at": time_text(pointer.published_at),
        "published_by": pointer.origin.by[:TEXT_LIMIT_CHARACTERS],
        **origin_facts(pointer.origin),
        "history": pointer.history[:HISTORY_LIMIT],
    }
    return json.dumps(facts, indent=2).encode() + b"\n"


def parse_pointer(data: bytes) -> Pointer:
    """
    Read a pointer.

    Raises:
        Invalid: It is not a pointer; the text says why.
    """
    facts = read_facts(data, POINTER_LIMIT_BYTES)
    manifest = get(facts, "manifest", dict)
    history = get(facts, "history", list)
    if len(history) > HISTORY_LIMIT or not all(map(is_revision, history)):
        raise Invalid("history is not a list of at most 20 revisions")
    return Pointer(
        read_revision(facts),
        read_sha256(manifest, "manifest.sha256"),
        read_size(manifest, "manifest.size_bytes", MANIFEST_LIMIT_BYTES),
        read_time(facts, "published_at"),
        read_origin(facts, "published_by"),
        tuple(history),
    )
