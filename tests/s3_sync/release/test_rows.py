"""Reading the rows of a manifest, and refusing unsafe or inconsistent ones."""

from collections.abc import Sequence
from contextlib import nullcontext
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3_sync.keys import refusal_of
from s3_sync.release.manifest import parse_manifest
from s3_sync.release.rows import (
    FILE_LIMIT_BYTES,
    FILES_LIMIT,
    TOTAL_LIMIT_BYTES,
    File,
    Invalid,
    offsets_of,
    read_rows,
)
from s3_sync.revision import ends_chunk
from tests.s3_sync.release.examples import manifest_of, names

ROW = File("b", 5, 10, "0" * 64, "0644", 31)


def read(*rows: File, target_bytes: int = 0) -> tuple[File, ...]:
    return read_rows([list(row[:5]) for row in rows], target_bytes)[0]


def test_accepts_a_valid_row() -> None:
    assert (ROW,) == read(ROW)
    assert {"b": ROW} == parse_manifest(manifest_of([list(ROW[:5])])).files


UNSAFE = [
    "",
    "/etc/passwd",
    "../up",
    "a/../../up",
    "a/..",
    "./a",
    "a/.",
    "a//b",
    "a/",
    "a\0b",
    "\0",
]
LONG = ["x" * 256, "/".join(["x" * 200] * 25), "ü" * 128]
# Ends a chunk, so that the next path is in another one.
LAST = next(path for path in (f"m{number}" for number in count()) if ends_chunk(path))
CLASHES = [["a", "a/b"], ["a", "a-b", "a/b"], ["a", "a/b/c/d/e"], ["x/a", "x/a/b/c"]]
NO_SHA256 = ["0" * 63, "0" * 63 + "G", "0" * 63 + "A", " " + "0" * 63, "é" * 64]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        *(({"path": path}, "cannot become a file") for path in UNSAFE),
        *(({"path": path}, "reserved") for path in (".s3-sync", ".s3-sync/managed")),
        *(({"path": path}, "name_too_long") for path in LONG),
        *(({name: -1}, "0 or more") for name in ("stored_bytes", "size_bytes")),
        *(({"size_bytes": number}, "0 or more") for number in (1.5, True)),
        ({"stored_bytes": "5"}, "0 or more"),
        ({"stored_bytes": 11}, "more stored bytes"),
        ({"stored_bytes": 0}, "times"),
        ({"size_bytes": 501}, "times"),
        ({"size_bytes": FILE_LIMIT_BYTES + 1, "stored_bytes": FILE_LIMIT_BYTES}, "limit"),
        *(({"sha256": text}, "sha256") for text in NO_SHA256),
        *(({"mode": mode}, "mode") for mode in ("0777", "4755")),
    ],
)
def test_refuses_an_unsafe_or_inconsistent_row(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(Invalid, match=problem):
        read(ROW._replace(**changes))


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        *((name, 5, "is not a string") for name in ("path", "sha256", "mode")),
        ("path", "\ud800", "unsafe_path"),
    ],
)
def test_refuses_a_row_whose_text_is_not_a_valid_string(
    name: str, value: object, problem: str
) -> None:
    row: list[Any] = list(ROW[:5])
    row[File._fields.index(name)] = value

    with pytest.raises(Invalid, match=problem):
        read_rows([row], 0)


@pytest.mark.parametrize("row", [[], ["b"], list(ROW), {"path": "b"}, "b"])
def test_refuses_data_that_is_not_a_row(row: object) -> None:
    with pytest.raises(Invalid, match="not rows"):
        read_rows([list(ROW[:5]), row], 0)


@pytest.mark.parametrize(
    ("paths", "problem"),
    [
        *((paths, "not sorted, or not unique") for paths in ("aa", "ba", (LAST, "a"))),
        *((paths, "both a file and a folder") for paths in CLASHES),
    ],
)
def test_refuses_unsorted_duplicate_or_clashing_paths(paths: Sequence[str], problem: str) -> None:
    """Even if they are in different chunks, as x/a and x/a/b are in one case of 64."""
    rows = [list(ROW._replace(path=path)[:5]) for path in paths]

    with pytest.raises(Invalid, match=problem):
        parse_manifest(manifest_of(rows))


def test_refuses_a_release_whose_total_size_is_too_large() -> None:
    size = FILE_LIMIT_BYTES
    rows = [[f"{n:02d}", size, size, "0" * 64, "0644"] for n in range(TOTAL_LIMIT_BYTES // size)]
    assert len(rows) == len(parse_manifest(manifest_of(rows)).files)

    with pytest.raises(Invalid, match="the limit is 2147483648"):
        parse_manifest(manifest_of([*rows, ["99", 1, 1, "0" * 64, "0644"]]))


def test_refuses_too_many_files(request: pytest.FixtureRequest) -> None:
    if not request.config.getoption("--full"):
        pytest.skip("takes 5 s: runs with make test-full")
    rows = [[f"{n:06d}", 0, 0, "0" * 64, "0644"] for n in range(FILES_LIMIT + 1)]

    assert FILES_LIMIT == len(parse_manifest(manifest_of(rows[:-1])).files)
    with pytest.raises(Invalid, match="the limit is 100000"):
        parse_manifest(manifest_of(rows))


def test_refuses_a_path_that_is_too_long_for_the_target() -> None:
    row = ROW._replace(path="/".join(["x" * 200] * 19))

    read(row, target_bytes=100)
    with pytest.raises(Invalid, match="name_too_long"):
        read(row, target_bytes=400)


@given(st.lists(st.one_of(names, st.sampled_from([".", "..", "", ".s3-sync"])), max_size=4))
def test_refuses_exactly_the_paths_that_are_refused_as_keys(parts: list[str]) -> None:
    path = "/".join(parts)

    with pytest.raises(Invalid) if refusal_of(path, 0) else nullcontext():
        read(ROW._replace(path=path))


@given(st.lists(names, min_size=1, max_size=6, unique=True), st.data())
def test_offsets_follow_from_names_and_sizes(paths: list[str], data: st.DataObject) -> None:
    stored = [data.draw(st.integers(0, 500)) for _ in paths]

    *offsets, end = offsets_of(paths, stored)

    at = 0
    for path, size, offset in zip(paths, stored, offsets, strict=True):
        assert at + 30 + len(path.encode()) == offset
        at = offset + size
    assert at == end
