"""
The rows of a manifest: what must not be written is refused.
"""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3_sync.keys import refusal_of
from s3_sync.release.manifest import parse_manifest
from s3_sync.release.names import revision_of
from s3_sync.release.rows import FILE_LIMIT_BYTES, FILES_LIMIT, TOTAL_LIMIT_BYTES, File, Invalid
from tests.s3_sync.release.examples import manifest_facts, names

ROW = File("b", 34, 5, 10, "0" * 64, "0644")


def manifest_of(*rows: File) -> bytes:
    """
    A manifest of any rows, whose revision is right.
    """
    revision = revision_of((row.path, row.sha256, row.mode == "0755") for row in rows)
    facts = manifest_facts() | {"revision": revision, "files": rows}
    facts["bundle"]["size_bytes"] = 2 * TOTAL_LIMIT_BYTES
    return json.dumps(facts).encode()


def test_the_row_of_these_tests_is_fine() -> None:
    assert {"b": ROW} == parse_manifest(manifest_of(ROW)).files


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"path": ""}, "cannot become a file"),
        ({"path": "/etc/passwd"}, "cannot become a file"),
        ({"path": "../up"}, "cannot become a file"),
        ({"path": "a/../../up"}, "cannot become a file"),
        ({"path": "a/.."}, "cannot become a file"),
        ({"path": "./a"}, "cannot become a file"),
        ({"path": "a/."}, "cannot become a file"),
        ({"path": "a//b"}, "cannot become a file"),
        ({"path": "a/"}, "cannot become a file"),
        ({"path": "a\0b"}, "cannot become a file"),
        ({"path": "\0"}, "cannot become a file"),
        ({"path": ".s3-sync"}, "reserved"),
        ({"path": ".s3-sync/managed"}, "reserved"),
        ({"path": "x" * 256}, "name_too_long"),
        ({"path": "/".join(["x" * 200] * 25)}, "name_too_long"),
        ({"path": "ü" * 128}, "name_too_long"),
        ({"offset": -1}, "0 or more"),
        ({"stored_bytes": -1}, "0 or more"),
        ({"size_bytes": -1}, "0 or more"),
        ({"size_bytes": 1.5}, "0 or more"),
        ({"size_bytes": True}, "0 or more"),
        ({"offset": "34"}, "0 or more"),
        ({"stored_bytes": 11}, "more bytes stored"),
        ({"stored_bytes": 0}, "times"),
        ({"size_bytes": 501}, "times"),
        ({"size_bytes": FILE_LIMIT_BYTES + 1, "stored_bytes": FILE_LIMIT_BYTES}, "limit"),
        ({"sha256": "0" * 63}, "sha256"),
        ({"sha256": "0" * 63 + "G"}, "sha256"),
        ({"sha256": "0" * 63 + "A"}, "sha256"),
        ({"sha256": " " + "0" * 63}, "sha256"),
        ({"sha256": "é" * 64}, "sha256"),
        ({"mode": "0777"}, "mode"),
        ({"mode": "4755"}, "mode"),
        ({"offset": 1 << 40}, "beyond the bundle"),
    ],
)
def test_a_row_that_must_not_be_written_is_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(Invalid, match=problem):
        parse_manifest(manifest_of(ROW._replace(**changes)))


@pytest.mark.parametrize("name", ["path", "sha256", "mode"])
def test_a_row_with_a_number_for_a_text_is_refused(name: str) -> None:
    facts = json.loads(manifest_of(ROW))
    facts["files"][0][File._fields.index(name)] = 5

    with pytest.raises(Invalid, match="is not a text"):
        parse_manifest(json.dumps(facts).encode())


def test_a_path_of_half_a_character_is_refused() -> None:
    facts = json.loads(manifest_of(ROW))
    facts["files"][0][0] = "\ud800"

    with pytest.raises(Invalid, match="unsafe_path"):
        parse_manifest(json.dumps(facts).encode())


@pytest.mark.parametrize(
    ("paths", "problem"),
    [
        (["a", "a"], "sorted, each once"),
        (["b", "a"], "sorted, each once"),
        (["a", "a/b"], "both a file and a folder"),
        (["a", "a-b", "a/b"], "both a file and a folder"),
        (["a", "a/b/c/d/e"], "both a file and a folder"),
        (["x/a", "x/a/b/c"], "both a file and a folder"),
    ],
)
def test_paths_that_do_not_go_together_are_refused(paths: list[str], problem: str) -> None:
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

    assert parse_manifest(data, target_bytes=100)
    with pytest.raises(Invalid, match="name_too_long"):
        parse_manifest(data, target_bytes=400)


@given(st.lists(st.one_of(names, st.sampled_from([".", "..", "", ".s3-sync"])), max_size=4))
def test_a_path_is_refused_exactly_where_a_key_would_be(parts: list[str]) -> None:
    path = "/".join(parts)
    data = manifest_of(ROW._replace(path=path))

    try:
        parse_manifest(data)
        is_refused = False
    except Invalid:
        is_refused = True

    assert (refusal_of(path, 0) is not None) == is_refused
