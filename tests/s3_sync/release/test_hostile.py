"""Releases that no honest publisher makes: refused with a reason, and nothing changes."""

import copy
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3_sync.release.manifest import parse_facts, parse_head, parse_manifest
from s3_sync.release.pointer import parse_pointer
from s3_sync.release.rows import HEADER_BYTES, File, Invalid
from tests.s3_sync.process import Process
from tests.support.releases import Release, make_release, seal
from tests.support.shelf import RELEASE, Shelf

FILES = {"a.py": b"a = 1\n" * 40, "empty.py": b"", "pkg/b.py": b"b = 1\n" * 7}
GOOD = {"a.py": b"good = 1\n", "old.py": b"old = 1\n"}

Attack = Callable[[Release], Release]


def rows_of(release: Release) -> list[File]:
    """The files with their offsets in the whole bundle."""
    return release.manifest.locate(release.manifest.files.values())


def row(**changes: Any) -> Attack:
    """Let the first file have another row."""

    def attack(release: Release) -> Release:
        first, *others = rows_of(release)
        return seal([first._replace(**changes), *others], release.bundle_bytes)

    return attack


def bundle(change: Callable[[bytes], bytes]) -> Attack:
    """Alter the data of the first file; all else says so."""

    def attack(release: Release) -> Release:
        rows, body = rows_of(release), release.bundle_bytes
        start, end = rows[0].offset, rows[0].offset + rows[0].stored_bytes
        return seal(rows, body[:start] + change(body[start:end]) + body[end:])

    return attack


def bomb(release: Release) -> Release:
    """A file of 64 MiB in 64 KiB, of which the manifest says that it is small."""
    rows, body = rows_of(release), release.bundle_bytes
    end = rows[-1].offset + rows[-1].stored_bytes
    offset = end + HEADER_BYTES + len("zzz.py")
    zeros = zlib.compress(bytes(64 << 20), 9, -15)
    last = File("zzz.py", len(zeros), 70_000, "0" * 64, "0644", offset)
    return seal([*rows, last], body[:end] + bytes(offset - end) + zeros)


SIZE_BYTES = len(FILES["a.py"])
# What is wrong with a manifest is refused before the layout matters: test_forged has all of that.
ATTACKS: dict[str, tuple[str, Attack]] = {
    "a name that leads out": ("release_invalid", row(path="../evil.py")),
    "a bomb that claims to be small": ("bundle_corrupt", bomb),
    "another sha256": ("bundle_corrupt", row(sha256="0" * 64)),
    "longer than it says": ("bundle_corrupt", row(size_bytes=SIZE_BYTES - 1)),
    "shorter than it says": ("bundle_corrupt", row(size_bytes=SIZE_BYTES + 1)),
    "no stream": ("bundle_corrupt", bundle(lambda data: b"\xff" * len(data))),
    "a stream without end": ("bundle_corrupt", bundle(lambda data: data[:-2] + b"\0\0")),
}


@pytest.mark.parametrize("layout", ["in-place", "snapshot"])
@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_changes_nothing_and_the_next_good_release_is_taken(
    shelf: Shelf, process: Process, name: str, layout: str
) -> None:
    """
    On an empty volume, which takes all of the bundle by one GET, and on one that has a release.
    """
    reason, attack = ATTACKS[name]
    hostile = attack(make_release(FILES))
    process.start({"KEY_PATH": "dags", **RELEASE, "S3_SYNC_LAYOUT": layout})
    for before in ({}, GOOD):
        if before:
            shelf.publish(before)
            assert "changed" == process.cycle().result
        shelf.store(hostile)
        shelf.point_to(hostile)

        assert reason == process.fail().reason
        assert before == process.shown
        assert [] == list((process.folder / ".s3-sync/staging").iterdir())
    assert not list(process.folder.parent.glob("*.py"))
    shelf.publish(FILES)
    process.cycle()
    assert FILES == process.shown


# --- any attack: no other error, and no half-read fact

HONEST = make_release(FILES)
DOCUMENTS: dict[str, tuple[bytes, Callable[[bytes], object]]] = {
    "pointer": (HONEST.pointer_bytes, parse_pointer),
    "manifest": (HONEST.manifest_bytes, parse_manifest),
}
POSITIONS = st.floats(0, 1, exclude_max=True)
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=20),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    st.sampled_from(["../evil.py", "0644", "0" * 64, [["x"]], 1 << 40]),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the paths to all values in a JSON document."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (*path, key)
        if isinstance(inner, dict | list):
            yield from places(inner, (*path, key))


def read(name: str, body: bytes) -> None:
    """Read a document, or refuse it."""
    try:
        found = DOCUMENTS[name][1](body)
    except Invalid:
        return
    files = getattr(found, "files", {})
    assert not any(".." in path.split("/") or path.startswith("/") for path in files)


@pytest.mark.parametrize("name", DOCUMENTS)
@given(where=POSITIONS, flip=st.integers(1, 255), more=st.binary(max_size=20))
def test_altered_bytes_are_refused_or_mean_something(
    name: str, where: float, flip: int, more: bytes
) -> None:
    body = DOCUMENTS[name][0]
    at = int(where * len(body))
    flipped = body[:at] + bytes([body[at] ^ flip]) + body[at + 1 :]
    for altered in (flipped, body[:at], body[:at] + more + body[at:], more):
        read(name, altered)


LINES = {
    "pointer": (HONEST.pointer_bytes, parse_pointer),
    "facts": (HONEST.manifest_bytes.split(b"\n")[0], lambda body: parse_facts(body + b"\n")),
    "list": (
        HONEST.manifest_bytes.split(b"\n")[1],
        lambda body: parse_head(HONEST.manifest_bytes.split(b"\n")[0] + b"\n" + body + b"\n"),
    ),
}


@pytest.mark.parametrize("name", LINES)
@given(where=POSITIONS, value=ODD)
def test_an_odd_value_is_refused_or_means_something(name: str, where: float, value: Any) -> None:
    body, parse = LINES[name]
    document = copy.deepcopy(json.loads(body))
    found = list(places(document))
    *above, key = found[int(where * len(found))]
    inner = document
    for step in above:
        inner = inner[step]
    inner[key] = value
    with suppress(Invalid):
        parse(json.dumps(document).encode())
