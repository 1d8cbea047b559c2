"""
Parses and serializes the manifest of a release, ``releases/<revision>.manifest``. Pure.

Two lines of JSON, then chunks: docs/reference/release-format.md.
"""

from __future__ import annotations

import json
from bisect import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import accumulate, chain, pairwise
from operator import itemgetter
from typing import Any

from s3_sync.release.chunk import Chunk, ChunkEntry, inflate, make_chunk, read_chunk
from s3_sync.release.facts import (
    FORMAT,
    TEXT_LIMIT_CHARACTERS,
    Checked,
    Origin,
    check_marks,
    check_size,
    checked_facts,
    get,
    load_json,
    origin_facts,
    read_checked,
    read_facts,
    read_origin,
    read_revision,
    read_sha256,
    read_size,
    read_time,
    time_text,
)
from s3_sync.release.rows import (
    FILES_LIMIT,
    TOTAL_LIMIT_BYTES,
    File,
    Invalid,
    check_clashes,
)
from s3_sync.revision import (
    chunk_ends,
    ends_chunk,
    is_revision,
    revision_of_chunks,
)
from s3_sync.signature import signer_named, split_line

# Limits of the reader, and therefore of the publisher; for the limits of files, see rows.py.
MANIFEST_LIMIT_BYTES = 64 << 20
# The limit of the first line.
FACTS_LIMIT_BYTES = 64 << 10
_path_of = itemgetter(File._fields.index("path"))


@dataclass(frozen=True, slots=True)
class Head:
    """
    The part of a manifest before its chunks.

    Args:
        created_at: When the release was published for the first time.
        origin: The origin of that publish.
        files: The number of files. Like `size_bytes`, only for tables: readers count themselves.
        checked: The Airflow check before that publish; None if there was none.
        signed_by: The key that its signature names, meaningless until the signature is verified;
            empty if there is no signature, or only the first line was read.
        chunks: Empty if only the first line was read.
    """

    revision: str
    created_at: datetime
    origin: Origin
    bundle_sha256: str
    bundle_bytes: int
    files: int
    size_bytes: int
    checked: Checked | None = field(default=None, repr=False)
    signed_by: str = ""
    chunks: tuple[ChunkEntry, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Manifest:
    """
    The content of a release; immutable.

    Args:
        chunks: In the order of paths and of the bundle.
        files: All files, by path.
    """

    head: Head
    chunks: tuple[Chunk, ...] = field(repr=False)
    files: Mapping[str, File] = field(repr=False)

    @property
    def revision(self) -> str:
        return self.head.revision

    def locate(self, files: Iterable[File]) -> list[File]:
        """
        Return files with their offsets in the whole bundle.
        """
        firsts = [chunk.files[0].path for chunk in self.chunks]
        starts = [0, *accumulate(chunk.entry.bundled_bytes for chunk in self.chunks)]
        return [
            file._replace(offset=starts[bisect(firsts, file.path) - 1] + file.offset)
            for file in files
        ]


def make_manifest(
    rows: Sequence[File],
    created_at: datetime,
    origin: Origin,
    sha256: str,
    bundle_bytes: int,
    checked: Checked | None,
) -> tuple[Manifest, bytes]:
    """
    Return a manifest and its bytes.

    Args:
        rows: The files, sorted by path, with offsets in the whole bundle.
        sha256: The digest of the bundle.
    """
    chunks, blobs, start = [], [], 0
    for first, end in pairwise((0, *chunk_ends([row.path for row in rows]))):
        part = [row._replace(offset=row.offset - start) for row in rows[first:end]]
        chunk, blob = make_chunk(part)
        start += chunk.entry.bundled_bytes
        chunks.append(chunk)
        blobs.append(blob)
    head = Head(
        revision_of_chunks(chunk.entry.digest for chunk in chunks),
        created_at,
        origin,
        sha256,
        bundle_bytes,
        len(rows),
        sum(row.size_bytes for row in rows),
        checked,
        chunks=tuple(chunk.entry for chunk in chunks),
    )
    files = {file.path: file for chunk in chunks for file in chunk.files}
    return Manifest(head, tuple(chunks), files), serialize_head(head) + b"".join(blobs)


def serialize_head(head: Head) -> bytes:
    facts = {
        "format": FORMAT,
        "revision": head.revision,
        "created_at": time_text(head.created_at),
        "created_by": head.origin.by[:TEXT_LIMIT_CHARACTERS],
        **origin_facts(head.origin),
        "bundle": {"sha256": head.bundle_sha256, "size_bytes": head.bundle_bytes},
        "totals": {"files": head.files, "size_bytes": head.size_bytes},
        **({"airflow": checked_facts(head.checked)} if head.checked else {}),
    }
    chunks = [[entry.digest, entry.stored_bytes, entry.bundled_bytes] for entry in head.chunks]
    return f"{json.dumps(facts)}\n{json.dumps({'chunks': chunks})}\n".encode()


def parse_facts(data: bytes) -> Head:
    """
    Parse only the first line of a manifest: enough for tables.

    Args:
        data: At least that line.

    Raises:
        Invalid: The line is malformed.
    """
    line, end, _ = data[:FACTS_LIMIT_BYTES].partition(b"\n")
    if not end:
        raise Invalid(f"its first line is incomplete, or longer than {FACTS_LIMIT_BYTES} bytes")
    facts = read_facts(line)
    bundle, totals = get(facts, "bundle", dict), get(facts, "totals", dict)
    return Head(
        read_revision(facts),
        read_time(facts, "created_at"),
        read_origin(facts, "created_by"),
        read_sha256(bundle, "bundle.sha256"),
        read_size(bundle, "bundle.size_bytes", 2 * TOTAL_LIMIT_BYTES),
        read_size(totals, "totals.files", FILES_LIMIT),
        read_size(totals, "totals.size_bytes", TOTAL_LIMIT_BYTES, least=0),
        read_checked(facts),
    )


def split_manifest(data: bytes) -> tuple[bytes, str, int]:
    """
    Return the first two lines of a manifest, the signature after them ("" if it has none), and
    the offset of the chunks.

    Raises:
        Invalid: It has fewer than two lines.
    """
    end = data.find(b"\n", data.find(b"\n") + 1) + 1
    if not end:
        raise Invalid("it has no list of chunks")
    return data[:end], *split_line(data, end)


def parse_head(data: bytes) -> tuple[Head, int]:
    """
    Parse the part of a manifest before its chunks; return it, and the offset of the chunks.

    Args:
        data: At least that part.

    Raises:
        Invalid: It is malformed, or its chunks do not match its revision.
    """
    head = parse_facts(data)
    lines, signature, end = split_manifest(data)
    line = lines[lines.index(b"\n") + 1 :]
    check_marks(line)
    facts = load_json(line)
    rows = get(facts, "chunks", list) if isinstance(facts, dict) else None
    if not rows or len(rows) > FILES_LIMIT:
        raise Invalid("it lists no chunks, or too many")
    chunks = tuple(map(_read_entry, rows))
    content = revision_of_chunks(chunk.digest for chunk in chunks)
    if content != head.revision:
        raise Invalid(f"its chunks belong to revision {content}, not to {head.revision}")
    if sum(chunk.bundled_bytes for chunk in chunks) > head.bundle_bytes:
        raise Invalid("the data of its files extends beyond the bundle")
    return replace(head, chunks=chunks, signed_by=signer_named(signature)), end


def _read_entry(row: Any) -> ChunkEntry:
    if type(row) is not list or list(map(type, row)) != [str, int, int]:
        raise Invalid("a chunk is not a digest and two sizes")
    digest, stored_bytes, bundled_bytes = row
    if not is_revision(digest):
        raise Invalid("the digest of a chunk is not 64 hexadecimal digits")
    check_size("the size of a chunk", stored_bytes, MANIFEST_LIMIT_BYTES)
    check_size("the size of a chunk in the bundle", bundled_bytes, 2 * TOTAL_LIMIT_BYTES)
    return ChunkEntry(digest, stored_bytes, bundled_bytes)


def missing_part(head: Head, known: Mapping[ChunkEntry, Chunk]) -> tuple[int, int]:
    """
    Return the range after the head that contains all unknown chunks; 0, 0 if there are none.
    """
    ends = list(accumulate((chunk.stored_bytes for chunk in head.chunks), initial=0))
    spans = [
        span for chunk, span in zip(head.chunks, pairwise(ends), strict=True) if chunk not in known
    ]
    return (spans[0][0], spans[-1][1]) if spans else (0, 0)


def read_manifest(
    head: Head, data: bytes, known: Mapping[ChunkEntry, Chunk], target_bytes: int
) -> Manifest:
    """
    Read the chunks of a manifest; afterwards all its files are safe to write below a target.

    Args:
        data: The range of :func:`missing_part`.
        known: Chunks of an earlier release.
        target_bytes: The length of the target's own path.

    Raises:
        Invalid: They do not match the head, or contain a path that must not be written.
    """
    at, end = missing_part(head, known)
    if len(data) != end - at:
        raise Invalid(f"its chunks have {len(data)} bytes, not {end - at}")
    at, left_bytes = -at, MANIFEST_LIMIT_BYTES
    chunks, fresh = [], []
    for entry in head.chunks:
        chunk = known.get(entry)
        if chunk is None:
            text = inflate(data[at : at + entry.stored_bytes], left_bytes)
            left_bytes -= len(text)
            chunk = read_chunk(entry, text, target_bytes)
            fresh.append(chunk)
        at += entry.stored_bytes
        chunks.append(chunk)
    every = list(chain.from_iterable(chunk.files for chunk in chunks))
    files = dict(zip(map(_path_of, every), every, strict=True))
    _check_whole(chunks, fresh, files)
    return Manifest(head, tuple(chunks), files)


def parse_manifest(data: bytes, target_bytes: int = 0) -> Manifest:
    """
    Read a whole manifest.

    Raises:
        Invalid: It is malformed, or contains a path that must not be written; the text says why.
    """
    if len(data) > MANIFEST_LIMIT_BYTES:
        raise Invalid(f"it has {len(data)} bytes; the limit is {MANIFEST_LIMIT_BYTES}")
    head, at = parse_head(data)
    return read_manifest(head, data[at:], {}, target_bytes)


def _check_whole(
    chunks: Sequence[Chunk], fresh: Sequence[Chunk], files: Mapping[str, File]
) -> None:
    """
    Check the rules across chunks; clashes only for pairs with at least one fresh chunk.
    """
    if len(files) > FILES_LIMIT:
        raise Invalid(f"it lists {len(files)} files; the limit is {FILES_LIMIT}")
    for chunk, after in pairwise(chunks):
        if not ends_chunk(chunk.files[-1].path):
            raise Invalid("a chunk does not end where its file names require")
        if not chunk.files[-1].path < after.files[0].path:
            raise Invalid(f"files are not sorted, or not unique: {after.files[0].path!r:.300}")
    total = sum(chunk.size_bytes for chunk in chunks)
    if total > TOTAL_LIMIT_BYTES:
        raise Invalid(f"its files have {total} bytes; the limit is {TOTAL_LIMIT_BYTES}")
    for chunk in fresh:
        check_clashes(chunk.folders, files)
    fresh_paths = {file.path for chunk in fresh for file in chunk.files}
    for chunk in chunks:
        check_clashes(chunk.folders, fresh_paths)
