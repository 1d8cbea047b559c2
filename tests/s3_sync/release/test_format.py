"""
Tests of the format: pointers and manifests, and everything that is none.
"""

import json
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3_sync.keys import refusal_of
from s3_sync.release.facts import MARKS_LIMIT, TEXT_LIMIT_CHARACTERS, Origin, check_bulk
from s3_sync.release.manifest import (
    HEAD_LIMIT_BYTES,
    MANIFEST_LIMIT_BYTES,
    parse_manifest,
    parse_summary,
    serialise_manifest,
)
from s3_sync.release.names import revision_of
from s3_sync.release.pointer import (
    HISTORY_LIMIT,
    POINTER_LIMIT_BYTES,
    parse_pointer,
    serialise_pointer,
)
from s3_sync.release.rows import FILE_LIMIT_BYTES, FILES_LIMIT, TOTAL_LIMIT_BYTES, File, Invalid
from tests.support.releases import make_release

RELEASE = make_release(
    {"a.py": b"print()\n", "sql/b.sql": b"select 1;\n" * 99, "ü/empty": b""},
    executable={"a.py"},
    history=("0123456789ab",),
)
Facts = dict[str, Any]
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


def pointer_facts() -> Facts:
    facts: Facts = json.loads(RELEASE.pointer_bytes)
    return facts


def manifest_facts() -> Facts:
    facts: Facts = json.loads(RELEASE.manifest_bytes)
    return facts


def test_a_pointer_is_read_as_it_was_written() -> None:
    assert parse_pointer(RELEASE.pointer_bytes) == RELEASE.pointer


def test_a_manifest_is_read_as_it_was_written() -> None:
    assert parse_manifest(RELEASE.manifest_bytes) == RELEASE.manifest


def test_a_manifest_is_json_with_one_file_a_line() -> None:
    lines = RELEASE.manifest_bytes.decode().splitlines()

    assert [list(row) for row in RELEASE.manifest.files.values()] == manifest_facts()["files"]
    assert 3 == sum(line.startswith("    [") for line in lines)


@given(st.dictionaries(names, st.binary(max_size=50), min_size=1, max_size=5), st.data())
def test_any_release_of_files_survives_the_way_to_bytes_and_back(
    files: dict[str, bytes], data: st.DataObject
) -> None:
    files = {path: body for path, body in files.items() if refusal_of(path, 0) is None}
    if not files:
        return
    executable = data.draw(st.sets(st.sampled_from(sorted(files))))

    release = make_release(files, executable=executable)

    clash = any(f"{path}/" == other[: len(path) + 1] for path in files for other in files)
    if clash:
        with pytest.raises(Invalid, match="both a file and a folder"):
            parse_manifest(release.manifest_bytes)
        return
    assert parse_manifest(release.manifest_bytes) == release.manifest
    assert parse_pointer(release.pointer_bytes) == release.pointer


def test_a_revision_is_content_paths_and_executable_bits_alone() -> None:
    one, two = ("a", "0" * 64, False), ("b", "1" * 64, False)
    other_name, other_content, other_mode = (
        ("c", "1" * 64, False),
        ("b", "2" * 64, False),
        ("b", "1" * 64, True),
    )

    revision = revision_of([one, two])

    assert revision == revision_of([one, two])
    others = [revision_of([one, other]) for other in (other_name, other_content, other_mode)]
    assert 4 == len({revision, *others})


def test_a_revision_is_what_the_reference_says() -> None:
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

    # printf '%s x a.py\0%s - b.py\0' $digest $digest | sha256sum | cut -c1-12
    assert "ecabc3b2980f" == revision_of([("a.py", digest, True), ("b.py", digest, False)])


@pytest.mark.parametrize("bomb", [b"[],", b"{},", b"1,"], ids=["lists", "objects", "numbers"])
def test_a_manifest_that_would_fill_the_memory_is_refused_before_it_is_parsed(bomb: bytes) -> None:
    data = b'{"format": 1, "files": [' + bomb * (2 * MARKS_LIMIT) + b"[]]}"
    tracemalloc.start()
    try:
        with pytest.raises(Invalid, match="brackets and commas"):
            parse_manifest(data)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_as_many_files_as_there_may_be_are_no_bomb() -> None:
    path = "[team, {a}]/[b, c]"
    row = ["0" * 11 + path, 10**9, 10**6, 10**6, "0" * 64, "0644"]
    check_bulk(json.dumps([row] * FILES_LIMIT).encode(), MANIFEST_LIMIT_BYTES)


def test_the_head_of_a_manifest_is_enough_for_a_table() -> None:
    files = {f"dags/{number:05d}.py": b"" for number in range(1_000)}
    long = Origin(*["😀" * TEXT_LIMIT_CHARACTERS] * 6)
    release = make_release(files)
    data = serialise_manifest(replace(release.manifest, origin=long))

    summary = parse_summary(data[:HEAD_LIMIT_BYTES])

    assert (release.revision, 1_000, 0) == (summary.revision, summary.files, summary.size_bytes)
    assert long == summary.origin
    assert release.manifest.bundle_sha256 == summary.bundle_sha256


@pytest.mark.parametrize("data", [b"", b"{}", b"[", b'{"format": 1}', b"\xff"])
def test_a_head_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(Invalid):
        parse_summary(data)


def test_texts_are_cut_and_history_is_short() -> None:
    origin = Origin(*["😀" * 2_000] * 6)
    pointer = replace(RELEASE.pointer, origin=origin, history=("0123456789ab",) * 50)

    data = serialise_pointer(pointer)

    assert len(data) < POINTER_LIMIT_BYTES
    found = parse_pointer(data)
    assert ("0123456789ab",) * HISTORY_LIMIT == found.history
    assert "😀" * TEXT_LIMIT_CHARACTERS == found.origin.message == found.origin.by


def test_what_is_odd_for_people_only_is_left_out() -> None:
    facts = pointer_facts() | {"git": "none", "ci_url": 3, "published_by": None, "new": {"a": 1}}

    assert Origin() == parse_pointer(json.dumps(facts).encode()).origin


def without(name: str) -> Callable[[Facts], object]:
    return lambda facts: facts.pop(name)


def with_(name: str, value: object) -> Callable[[Facts], object]:
    return lambda facts: facts.__setitem__(name, value)


BAD_FACTS = [
    with_("format", 2),
    with_("format", True),
    with_("format", "1"),
    without("format"),
    without("revision"),
    with_("revision", "../../../etc"),
    with_("revision", "D1DC912C81B9"),
    with_("revision", "d1dc912c81b9\n"),
    with_("revision", 123456789012),
]


@pytest.mark.parametrize(
    "spoil",
    [
        *BAD_FACTS,
        without("manifest"),
        with_("manifest", []),
        with_("manifest", {"sha256": "0" * 63, "size_bytes": 1}),
        with_("manifest", {"sha256": "G" * 64, "size_bytes": 1}),
        with_("manifest", {"sha256": "0" * 64, "size_bytes": 0}),
        with_("manifest", {"sha256": "0" * 64, "size_bytes": True}),
        with_("manifest", {"sha256": "0" * 64, "size_bytes": MANIFEST_LIMIT_BYTES + 1}),
        without("published_at"),
        with_("published_at", "yesterday"),
        with_("published_at", 1_700_000_000),
        without("history"),
        with_("history", ["x"]),
        with_("history", [["0123456789ab"]]),
        with_("history", ["0123456789ab"] * 21),
    ],
)
def test_what_is_no_pointer_is_refused(spoil: Callable[[Facts], object]) -> None:
    facts = pointer_facts()
    spoil(facts)

    with pytest.raises(Invalid):
        parse_pointer(json.dumps(facts).encode())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b"9" * 5_000,
        b" " * (64 << 10) + b"{}",
    ],
    ids=["empty", "null", "list", "half", "bytes", "deep", "long number", "too long"],
)
def test_what_is_no_json_object_is_refused(data: bytes) -> None:
    for parse in (parse_pointer, parse_manifest):
        with pytest.raises(Invalid):
            parse(data)


@pytest.mark.parametrize(
    "spoil",
    [
        *BAD_FACTS,
        with_("revision", "0123456789ab"),
        without("created_at"),
        without("bundle"),
        with_("bundle", {"sha256": "0" * 64, "size_bytes": 1}),
        with_("bundle", {"sha256": "0" * 64, "size_bytes": -1}),
        with_("bundle", {"sha256": None, "size_bytes": 1_000}),
        without("files"),
        with_("files", {}),
        with_("files", []),
        with_("files", [1]),
        with_("files", [[]]),
        with_("files", [["a"]]),
        with_("files", [["a", 34, 0, 0, "0" * 64, "0644", "more"]]),
    ],
)
def test_what_is_no_manifest_is_refused(spoil: Callable[[Facts], object]) -> None:
    facts = manifest_facts()
    spoil(facts)

    with pytest.raises(Invalid):
        parse_manifest(json.dumps(facts).encode())


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
