"""
The manifest of a release, ``releases/<revision>.json``, from and to bytes. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from json.encoder import encode_basestring_ascii as _quoted

from s3_sync.digest import revision_of
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
from s3_sync.release.rows import TOTAL_LIMIT_BYTES, File, Invalid, read_rows

# Limits of the reader, and so of the publisher; those of files: rows.py.
MANIFEST_LIMIT_BYTES = 64 << 20
# A manifest says everything except its files within this many bytes.
HEAD_LIMIT_BYTES = 40 << 10

_FILES = '\n  "files": '


@dataclass(frozen=True, slots=True)
class Manifest:
    """
    What a release consists of: ``releases/<revision>.json``; immutable.

    Args:
        created_at: When it was published for the first time.
        origin: Of that publish.
        files: By path, in the order of paths and of the bundle.
    """

    revision: str
    created_at: datetime
    origin: Origin
    bundle_sha256: str
    bundle_bytes: int
    files: Mapping[str, File] = field(repr=False)

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files.values())


@dataclass(frozen=True, slots=True)
class Summary:
    """
    What the head of a manifest says, for tables of releases; nothing of it is verified.
    """

    revision: str
    created_at: datetime
    origin: Origin
    bundle_sha256: str
    files: int
    size_bytes: int


def serialise_manifest(manifest: Manifest) -> bytes:
    """
    Return a manifest's bytes: JSON with one file a line.
    """
    head = {
        "format": FORMAT,
        "revision": manifest.revision,
        "created_at": time_text(manifest.created_at),
        "created_by": manifest.origin.by[:TEXT_LIMIT_CHARACTERS],
        **origin_facts(manifest.origin),
        "bundle": {"sha256": manifest.bundle_sha256, "size_bytes": manifest.bundle_bytes},
        "totals": {"files": len(manifest.files), "size_bytes": manifest.size_bytes},
    }
    rows = ",\n".join(
        f"    [{_quoted(path)}, {offset}, {stored}, {size}, {_quoted(sha256)}, {_quoted(mode)}]"
        for path, offset, stored, size, sha256, mode in manifest.files.values()
    )
    text = json.dumps(head, indent=2)[: -len("\n}")]
    return f"{text},{_FILES}[\n{rows}\n  ]\n}}\n".encode()


def parse_manifest(data: bytes, target_bytes: int = 0) -> Manifest:
    """
    Read a manifest; whatever it says can then be written below a target.

    Args:
        target_bytes: Length of the target's own path.

    Raises:
        Invalid: It is not a manifest, or names what must not be written; the text says why.
    """
    facts = read_facts(data, MANIFEST_LIMIT_BYTES)
    bundle = get(facts, "bundle", dict)
    bundle_bytes = read_size(bundle, "bundle.size_bytes", 2 * TOTAL_LIMIT_BYTES)
    files = read_rows(get(facts, "files", list), bundle_bytes, target_bytes)
    manifest = Manifest(
        read_revision(facts),
        read_time(facts, "created_at"),
        read_origin(facts, "created_by"),
        read_sha256(bundle, "bundle.sha256"),
        bundle_bytes,
        files,
    )
    content = revision_of((path, row[4], row[5] == "0755") for path, row in files.items())
    if content != manifest.revision:
        raise Invalid(f"its files are revision {content}, not {manifest.revision}")
    return manifest


def parse_summary(head: bytes) -> Summary:
    """
    Read the first bytes of a manifest that :func:`serialise_manifest` wrote.

    Raises:
        Invalid: They are not a manifest.
    """
    before, found, _ = head.partition(_FILES.encode())
    facts = read_facts(before.rstrip(b",") + b"}" if found else head, MANIFEST_LIMIT_BYTES)
    totals = get(facts, "totals", dict)
    return Summary(
        read_revision(facts),
        read_time(facts, "created_at"),
        read_origin(facts, "created_by"),
        read_sha256(get(facts, "bundle", dict), "bundle.sha256"),
        get(totals, "totals.files", int),
        get(totals, "totals.size_bytes", int),
    )
