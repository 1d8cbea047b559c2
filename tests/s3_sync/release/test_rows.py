"""The rows of a manifest: what must not be written is refused."""

import json
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3_sync.digest import revision_of
from s3_sync.keys import refusal_of
from s3_sync.release.manifest import parse_manifest
from s3_sync.release.rows import FILE_LIMIT_BYTES, FILES_LIMIT, TOTAL_LIMIT_BYTES, File, Invalid
from tests.s3_sync.release.examples import manifest_facts, names

ROW = File("b", 34, 5, 10, "0" * 64, "0644")


def manifest_of(*rows: File) -> bytes:
    """A manifest of any rows, whose revision is right."""
    revision = revision_of((row.path, row.sha256, row.mode == "0755") for row in rows)
    facts = manifest_facts() | {"revision": revision, "files": rows}
    facts["bundle"]["size_bytes"] = 2 * TOTAL_LIMIT_BYTES
    return json.dumps(facts).encode()


def test_the_row_of_these_tests_is_fine() -> None:
    assert {"b": ROW} == parse_manifest(manifest_of(ROW)).files


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
CLASHES = [["a", "a/b"], ["a", "a-b", "a/b"], ["a", "a/b/c/d/e"], ["x/a", "x/a/b/c"]]
NO_SHA256 = ["0" * 63, "0" * 63 + "G", "0" * 63 + "A", " " + "0" * 63, "é" * 64]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        *(({"path": path}, "cannot become a file") for path in UNSAFE),
        *(({"path": path}, "reserved") for path in (".s3-sync", ".s3-sync/managed")),
        *(({"path": path}, "name_too_long") for path in LONG),
        *(({name: -1}, "0 or more") for name in ("offset", "stored_bytes", "size_bytes")),
        *(({"size_bytes": number}, "0 or more") for number in (1.5, True)),
        ({"offset": "34"}, "0 or more"),
        ({"stored_bytes": 11}, "more bytes stored"),
        ({"stored_bytes": 0}, "times"),
        ({"size_bytes": 501}, "times"),
        ({"size_bytes": FILE_LIMIT_BYTES + 1, "stored_bytes": FILE_LIMIT_BYTES}, "limit"),
        *(({"sha256": text}, "sha256") for text in NO_SHA256),
        *(({"mode": mode}, "mode") for mode in ("0777", "4755")),
        ({"offset": 1 << 40}, "beyond the bundle"),
    ],
)
def test_a_row_that_must_not_be_written_is_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(Invalid, match=problem):
        parse_manifest(manifest_of(ROW._replace(**changes)))


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        *((name, 5, "is not a text") for name in ("path", "sha256", "mode")),
        ("path", "\ud800", "unsafe_path"),
    ],
)
def test_a_row_without_a_text_is_refused(name: str, value: object, problem: str) -> None:
    facts = json.loads(manifest_of(ROW))
    facts["files"][0][File._fields.index(name)] = value

    with pytest.raises(Invalid, match=problem):
        parse_manifest(json.dumps(facts).encode())


@pytest.mark.parametrize(
    ("paths", "problem"),
    [
        *((paths, "sorted, each once") for paths in ("aa", "ba")),
        *((paths, "both a file and a folder") for paths in CLASHES),
    ],
)
def test_paths_that_do_not_go_together_are_refused(paths: Sequence[str], problem: str) -> None:
    rows = [ROW._replace(path=path, offset=100 * number) for number, path in enumerate(paths)]

    with pytest.raises(Invalid, match=problem):
        parse_manifest(manifest_of(*rows))


@pytest.mark.parametrize(("first", "second"), [(34, 34), (34, 38), (100, 34)])
def test_ranges_that_overlap_or_go_back_are_refused(first: int, second: int) -> None:
    rows = ROW._replace(path="a", offset=first), ROW._replace(path="b", offset=second)

    with pytest.raises(Invalid, match="overlap"):
        parse_manifest(manifest_of(*rows))


def test_too_many_bytes_in_all_are_refused() -> None:
    size = FILE_LIMIT_BYTES
    rows = [
        ROW._replace(path=f"{n:02d}", offset=n * size, stored_bytes=size, size_bytes=size)
        for n in range(TOTAL_LIMIT_BYTES // size + 1)
    ]

    with pytest.raises(Invalid, match="the limit is"):
        parse_manifest(manifest_of(*rows))


def test_too_many_files_are_refused_before_they_are_looked_at() -> None:
    facts = manifest_facts() | {"files": [[]] * (FILES_LIMIT + 1)}

    with pytest.raises(Invalid, match="the limit is 100000"):
        parse_manifest(json.dumps(facts).encode())


def test_a_path_that_is_too_long_for_this_target_only_is_refused_there() -> None:
    data = manifest_of(ROW._replace(path="/".join(["x" * 200] * 19)))

    parse_manifest(data, target_bytes=100)
    with pytest.raises(Invalid, match="name_too_long"):
        parse_manifest(data, target_bytes=400)


@given(st.lists(st.one_of(names, st.sampled_from([".", "..", "", ".s3-sync"])), max_size=4))
def test_a_path_is_refused_exactly_where_a_key_would_be(parts: list[str]) -> None:
    path = "/".join(parts)
    data = manifest_of(ROW._replace(path=path))

    with pytest.raises(Invalid) if refusal_of(path, 0) else nullcontext():
        parse_manifest(data)
