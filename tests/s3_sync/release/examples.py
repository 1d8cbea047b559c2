"""Example releases, and ways to corrupt them."""

import json
import zlib
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st

from s3_sync.release.manifest import parse_head
from s3_sync.release.rows import offsets_of
from s3_sync.revision import chunk_digest, chunk_ends, revision_of_chunks
from tests.support.s3_sync.releases import ABSENT, make_release

RELEASE = make_release(
    {"a.py": b"print()\n", "sql/b.sql": b"select 1;\n" * 99, "ü/empty": b""},
    executable={"a.py"},
    history=[ABSENT],
)

Facts = dict[str, Any]
Rows = Sequence[Any]

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


def manifest_facts() -> Facts:
    """Return the first line of a manifest, parsed."""
    facts: Facts = json.loads(RELEASE.manifest_bytes.partition(b"\n")[0])
    return facts


def line(facts: object) -> bytes:
    return json.dumps(facts).encode() + b"\n"


def chunk(text: bytes) -> bytes:
    return zlib.compress(text)


def manifest_of(rows: Rows, *, ends: Sequence[int] | None = None, **facts: object) -> bytes:
    """
    Return a manifest of any rows that is consistent in itself.

    Args:
        ends: The ends of its chunks, instead of the correct ones.
    """
    blobs: list[bytes] = []
    entries: list[tuple[str, int, int]] = []
    start = 0
    for end in ends or chunk_ends([str(row[0]) for row in rows]):
        part = rows[start:end]
        blob = chunk(json.dumps(part).encode())
        size = offsets_of([row[0] for row in part], [row[1] for row in part])[-1]
        digest = chunk_digest((row[0], row[3], row[4] == "0755") for row in part)
        entries.append((digest, len(blob), size))
        blobs.append(blob)
        start = end
    head = manifest_facts() | {"revision": revision_of_chunks(one[0] for one in entries)} | facts
    head["bundle"] = {"sha256": "0" * 64, "size_bytes": 4 << 30}
    return b"".join([line(head), line({"chunks": entries}), *blobs])


def lines_and_chunks() -> tuple[Facts, Facts, bytes]:
    """Return the two lines of a manifest, parsed, and its chunks."""
    data, at = RELEASE.manifest_bytes, parse_head(RELEASE.manifest_bytes)[1]
    first, second = data[:at].splitlines()
    return json.loads(first), json.loads(second), data[at:]


def without(name: str) -> Callable[[Facts], object]:
    return lambda facts: facts.pop(name)


def with_(name: str, value: object) -> Callable[[Facts], object]:
    return lambda facts: facts.__setitem__(name, value)


BAD_FACTS = [
    with_("format", 1), with_("format", 3), with_("format", True), with_("format", "2"),
    without("format"), without("revision"), with_("revision", "../../../etc"),
    with_("revision", ABSENT.upper()), with_("revision", f"{ABSENT}\n"), with_("revision", 12),
    with_("revision", ABSENT[:12]),
]  # fmt: skip
