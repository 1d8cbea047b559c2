"""
Releases that contradict themselves, made by one change at one step; the honest key signs them all.
"""

import hashlib
import json
import zlib
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from s3_sync.release.manifest import split_manifest
from s3_sync.release.names import POINTER_KEY, bundle_key, manifest_key
from s3_sync.release.pointer import split_pointer
from s3_sync.release.signed import sign_manifest, sign_pointer
from s3_sync.revision import chunk_digest, chunk_ends, revision_of_chunks
from tests.s3_sync.release.attacks import BUCKET, HONEST, Attack, Objects, Scene, signed
from tests.support.releases import make_release
from tests.support.shelf import PREFIX

Rows = list[Any]
Change = Callable[[Any], Any]


def same(value: Any) -> Any:
    return value


def forged(
    *,
    rows: Change = same,
    told: Change = same,
    text: Change = same,
    blob: Change = same,
    chunks: Change = same,
    facts: Change = same,
    lines: Change = same,
    bundle: Change = same,
    ends: Sequence[int] = (),
) -> Attack:
    """
    Alter the next release at one step of its making; all that follows from it follows.

    Args:
        rows: Before digests and sizes are made of them.
        told: Of each chunk, after that.
        text: Its JSON.
        blob: That, compressed.
        chunks: The list of chunks.
        facts: The first line.
        lines: Both lines, as bytes.
        bundle: Its bytes, whose size and digest are then right.
        ends: Of the chunks.
    """

    def attack(scene: Scene) -> Objects:
        table = rows([list(file[:5]) for file in scene.next.manifest.files.values()])
        entries, blobs = [], []
        for a, b in pairwise((0, *(ends or chunk_ends([row[0] for row in table])))):
            part = table[a:b]
            blobs.append(blob(zlib.compress(text(json.dumps(told(part)).encode()))))
            digest = chunk_digest((row[0], row[3], row[4] == "0755") for row in part)
            entries.append([digest, len(blobs[-1]), taken_by(part)])
        entries = chunks(entries)
        revision = revision_of_chunks(str(entry[0]) for entry in entries)
        body = bundle(scene.next.bundle_bytes)
        named = {"sha256": sha256(body), "size_bytes": max(len(body), taken_by(table))}
        honest = json.loads(scene.next.manifest_bytes.partition(b"\n")[0])
        first_line = facts(honest | {"revision": revision, "bundle": named})
        two = lines(line_of(first_line) + line_of({"chunks": entries}))
        manifest = sign_manifest(two + b"".join(blobs), HONEST.signer)
        return {bundle_key(sha256(body)): body} | pointed(scene, revision, manifest)

    return attack


def pointed(scene: Scene, revision: str, manifest: bytes) -> Objects:
    """Make a manifest current, honestly."""
    two, _, head_bytes = split_manifest(manifest)
    pointer = scene.next.pointer._replace(
        turn=scene.next.pointer.turn._replace(revision=revision),
        manifest_bytes=len(manifest),
        head_bytes=head_bytes,
        manifest_sha256=sha256(two),
    )
    return {manifest_key(revision): manifest, POINTER_KEY: signed(pointer)}


def taken_by(rows: Rows) -> int:
    return sum(30 + len(row[0].encode()) + row[1] for row in rows)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def line_of(facts: object) -> bytes:
    return json.dumps(facts).encode() + b"\n"


def named(*paths: str) -> Attack:
    """A release of files of these names."""

    def attack(scene: Scene) -> Objects:
        release = make_release(dict.fromkeys(paths, b"evil = 1\n"), signer=HONEST.signer)
        bundle = {bundle_key(release.manifest.head.bundle_sha256): release.bundle_bytes}
        return bundle | pointed(scene, release.revision, release.manifest_bytes)

    return attack


PATH, STORED, SIZE, SHA256, MODE = range(5)


def cell(column: int, value: Any) -> Change:
    """Let the first row have another value."""
    return lambda rows: [[*rows[0][:column], value, *rows[0][column + 1 :]], *rows[1:]]


def put(name: str, value: Any) -> Change:
    return lambda facts: {**facts, name: value}


def without(name: str) -> Change:
    return lambda facts: {known: value for known, value in facts.items() if known != name}


def inner(name: str, change: Change) -> Change:
    return lambda facts: {**facts, name: change(facts[name])}


def entry(column: int, change: Change) -> Attack:
    """Let the list say something else of the first chunk: digest, length, or what it takes."""
    return forged(chunks=lambda entries: cell(column, change(entries[0][column]))(entries))


def packed(column: int, change: Change) -> Change:
    """Alter a column of the only file that is compressed."""
    return lambda rows: [
        [*row[:column], change(row[column]), *row[column + 1 :]] if row[PATH] == "pkg/b.py" else row
        for row in rows
    ]


def pointer(change: Change) -> Attack:
    """Alter the facts of a pointer, and sign it."""
    return pointer_bytes(lambda body: line_of(change(json.loads(body))))


def pointer_bytes(change: Callable[[bytes], bytes]) -> Attack:
    """Alter the bytes of a pointer, and sign it."""

    def attack(scene: Scene) -> Objects:
        body = change(split_pointer(scene.next.pointer_bytes)[0])
        return scene.objects(pointer=sign_pointer(body, BUCKET, PREFIX, HONEST.signer))

    return attack


def in_history(change: Change) -> Attack:
    return pointer(inner("history", lambda turns: [change(turns[0]), *turns[1:]]))


def twice(text: bytes) -> Callable[[bytes], bytes]:
    """Put a name and its value before the others of an object."""
    return lambda data: data.replace(b"{", b"{" + text + b", ", 1)
