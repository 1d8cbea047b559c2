"""Parsing and serializing the manifest of a release."""

import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3_sync.keys import refusal_of
from s3_sync.release.chunk import Chunk, ChunkEntry, inflate, make_chunk, read_chunk
from s3_sync.release.facts import (
    DAG_IDS_LIMIT_BYTES,
    MARKS_LIMIT,
    TEXT_LIMIT_CHARACTERS,
    Checked,
    Origin,
)
from s3_sync.release.manifest import (
    FACTS_LIMIT_BYTES,
    MANIFEST_LIMIT_BYTES,
    Manifest,
    missing_part,
    parse_facts,
    parse_head,
    parse_manifest,
    read_manifest,
    serialize_head,
)
from s3_sync.release.pointer import parse_pointer
from s3_sync.release.rows import File, Invalid
from s3_sync.revision import chunk_ends, revision_of, revision_of_chunks
from tests.s3_sync.release.examples import (
    BAD_FACTS,
    RELEASE,
    Facts,
    chunk,
    line,
    lines_and_chunks,
    manifest_facts,
    manifest_of,
    names,
    with_,
    without,
)
from tests.support.raising import raised
from tests.support.s3_sync.releases import ABSENT, AT, Release, make_release

MANY = {f"team{n % 7}/dag_{n:04}.py": b"%d" % n for n in range(1_000)}


def known_of(manifest: Manifest) -> dict[ChunkEntry, Chunk]:
    return {chunk.entry: chunk for chunk in manifest.chunks}


def test_a_manifest_round_trips() -> None:
    assert parse_manifest(RELEASE.manifest_bytes) == RELEASE.manifest


@given(st.dictionaries(names, st.binary(max_size=50), min_size=1, max_size=5), st.data())
def test_any_release_round_trips_unless_its_paths_clash(
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


# --- revisions


def test_a_revision_depends_on_content_paths_and_executable_bits() -> None:
    one, two = ("a", "0" * 64, False), ("b", "1" * 64, False)
    others = [("c", "1" * 64, False), ("b", "2" * 64, False), ("b", "1" * 64, True)]

    revision = revision_of([one, two])

    assert revision == revision_of([one, two])
    assert 4 == len({revision, *(revision_of([one, other]) for other in others)})


def test_a_revision_is_computed_as_the_reference_documents() -> None:
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

    # printf '%s\n' $(printf '%s x a.py\0%s - b.py\0' $digest $digest | sha256sum | cut -c1-64) |
    #   sha256sum
    expected = "e84a6e84f5da42f61eefabd6234b1b9e63dbf4f2261829ec77f59a882f2da548"
    assert expected == revision_of([("a.py", digest, True), ("b.py", digest, False)])


def test_a_chunk_ends_where_the_crc_of_a_path_is_divisible_by_64() -> None:
    paths = sorted(MANY)

    ends = chunk_ends(paths)

    assert ends[-1] == len(paths)
    inner = [at for at, path in enumerate(paths, 1) if zlib.crc32(path.encode()) % 64 == 0]
    assert inner == [end for end in ends if end in inner] and len(ends) - len(inner) in (0, 1)
    assert 5 < len(ends) < 50


# --- reading only the chunks that the previous release does not have


def read_news(before: Release, after: Release) -> tuple[Manifest, int]:
    """Read a manifest in parts; return it and the number of bytes of chunks read."""
    data = after.manifest_bytes
    head, at = parse_head(data[: after.pointer.head_bytes])
    known = known_of(before.manifest)
    start, end = missing_part(head, known)
    return read_manifest(head, data[at + start : at + end], known, 0), end - start


@pytest.mark.parametrize(
    "change",
    [
        lambda files: files.__setitem__("team3/dag_0500.py", b"other"),
        lambda files: files.__setitem__("team3/dag_0500_a.py", b"more"),
        lambda files: files.pop("team3/dag_0500.py"),
        lambda files: files.__setitem__("team0/aaa.py", b"first"),
    ],
    ids=["changed", "added", "removed", "first"],
)
def test_one_change_reads_little_of_the_manifest(
    change: Callable[[dict[str, bytes]], None],
) -> None:
    files = dict(MANY)
    change(files)
    before, after = make_release(MANY), make_release(files)

    manifest, read_bytes = read_news(before, after)

    assert after.manifest == manifest
    assert read_bytes < len(after.manifest_bytes) / 2


def test_reads_no_chunks_if_chunks_were_only_removed() -> None:
    ends = chunk_ends(sorted(MANY))
    files = {path: MANY[path] for path in sorted(MANY)[: ends[3]]}
    before, after = make_release(MANY), make_release(files)

    assert (after.manifest, 0) == read_news(before, after)


FEW = dict(sorted(MANY.items())[:250])


@settings(max_examples=20)
@given(st.lists(st.sets(st.sampled_from(sorted(FEW)), max_size=3), max_size=3))
def test_reading_only_new_chunks_gives_the_whole_manifest(steps: list[set[str]]) -> None:
    before = make_release(FEW)
    known = before.manifest
    files = dict(FEW)
    for number, paths in enumerate(steps):
        files |= dict.fromkeys(paths, b"step %d" % number)
        after = make_release(files)
        known, _ = read_news(replace(before, manifest=known), after)
        assert parse_manifest(after.manifest_bytes) == known


def test_detects_path_clashes_between_known_and_new_chunks() -> None:
    before = make_release({f"x{n}/a.py": b"" for n in range(300)})
    for path in ("x7", "x7/a.py/b"):
        after = make_release({**{f"x{n}/a.py": b"" for n in range(300)}, path: b""})
        with pytest.raises(Invalid, match="both a file and a folder"):
            read_news(before, after)


def test_locates_every_file_in_the_bundle() -> None:
    release = make_release(MANY)

    for file in release.manifest.locate(release.manifest.files.values()):
        data = release.bundle_bytes[file.offset : file.offset + file.stored_bytes]
        assert MANY[file.path] == data


# --- facts

GOOD_AIRFLOW = {
    "version": "3.3.2",
    "checked_at": "2026-11-20T15:00:00Z",
    "dags": 1,
    "files_not_loaded": 0,
}


def test_the_longest_facts_fit_within_the_limit_of_the_first_line() -> None:
    long = Origin(*["😀" * TEXT_LIMIT_CHARACTERS] * 6)
    ids = tuple(f"dag_{n:019}" for n in range(DAG_IDS_LIMIT_BYTES // 28))
    checked = Checked("3.3.2" * TEXT_LIMIT_CHARACTERS, AT, len(ids), ids)
    checked = checked._replace(airflow=checked.airflow[:TEXT_LIMIT_CHARACTERS])
    head = replace(make_release(MANY).manifest.head, origin=long, checked=checked)

    found = parse_facts(serialize_head(head)[:FACTS_LIMIT_BYTES])

    assert replace(head, chunks=()) == found
    assert 1_000 == found.files


def test_omits_too_many_dag_ids_and_keeps_their_number() -> None:
    ids = tuple(f"dag_{n}" for n in range(DAG_IDS_LIMIT_BYTES // 5))
    head = replace(make_release(MANY).manifest.head, checked=Checked("3.3.2", AT, len(ids), ids))

    checked = parse_facts(serialize_head(head)).checked

    assert Checked("3.3.2", AT, len(ids)) == checked


@pytest.mark.parametrize(
    "odd",
    [
        1, [], {}, {"version": "3"}, {**GOOD_AIRFLOW, "version": 3}, {**GOOD_AIRFLOW, "dags": "1"},
        {**GOOD_AIRFLOW, "checked_at": "soon"}, {**GOOD_AIRFLOW, "files_not_loaded": None},
    ],
)  # fmt: skip
def test_ignores_invalid_facts_of_the_airflow_check(odd: object) -> None:
    facts, chunks, blobs = lines_and_chunks()
    facts["airflow"] = odd

    assert parse_manifest(line(facts) + line(chunks) + blobs).head.checked is None


@pytest.mark.parametrize("ids", ["a", [1], {"a": 1}, None])
def test_ignores_invalid_dag_ids(ids: object) -> None:
    facts, chunks, blobs = lines_and_chunks()
    facts["airflow"] = {**GOOD_AIRFLOW, "dag_ids": ids}

    checked = parse_manifest(line(facts) + line(chunks) + blobs).head.checked

    assert checked is not None and ("3.3.2", ()) == (checked.airflow, checked.dag_ids)


@pytest.mark.parametrize("data", [b"", b"{}", b"[\n", b'{"format": 2}\n', b"\xff\n", b" " * 50_000])
def test_refuses_an_invalid_first_line(data: bytes) -> None:
    with pytest.raises(Invalid):
        parse_facts(data)


# --- refusals


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (line(manifest_facts()), "no list of chunks"),
        (line(manifest_facts())[:-1], "first line is incomplete"),
        (RELEASE.manifest_bytes + bytes(MANIFEST_LIMIT_BYTES), "the limit is"),
    ],
    ids=["one line", "half a line", "too long"],
)
def test_refuses_an_incomplete_or_oversized_manifest(data: bytes, problem: str) -> None:
    with pytest.raises(Invalid, match=problem):
        parse_manifest(data)


BAD_DIGESTS = (None, "", "0" * 63, "A" * 64, "\u0660" * 64, "../../other/bundle")


@pytest.mark.parametrize(
    "spoil",
    [
        *BAD_FACTS,
        with_("revision", ABSENT),
        without("created_at"),
        without("bundle"),
        *(with_("bundle", {"sha256": "0" * 64, "size_bytes": size}) for size in (1, -1)),
        *(with_("bundle", {"sha256": found, "size_bytes": 1_000}) for found in BAD_DIGESTS),
        without("totals"),
        with_("totals", {"files": 1}),
        with_("totals", {"files": 1, "size_bytes": 10**400}),
        with_("totals", {"files": 10**400, "size_bytes": 1}),
        with_("totals", {"files": 1, "size_bytes": -1}),
    ],
)
def test_refuses_invalid_facts(spoil: Callable[[Facts], object]) -> None:
    facts, chunks, blobs = lines_and_chunks()
    spoil(facts)

    with pytest.raises(Invalid):
        parse_manifest(line(facts) + line(chunks) + blobs)


E0 = lines_and_chunks()[1]["chunks"][0]


@pytest.mark.parametrize(
    "listed",
    [
        None, [], {}, [1], [[]], [E0[:2]], [[*E0, 1]], [[E0[0].upper(), *E0[1:]]],
        [[E0[0], 0, E0[2]]], [[E0[0], True, E0[2]]], [[E0[0], E0[1], -1]], [[E0[0], 1.5, 1]],
        [E0, E0], [["0" * 64, *E0[1:]]],
    ],
)  # fmt: skip
def test_refuses_an_invalid_list_of_chunks(listed: object) -> None:
    facts, _, blobs = lines_and_chunks()
    for second in ({"chunks": listed}, listed):
        with pytest.raises(Invalid):
            parse_manifest(line(facts) + line(second) + blobs)


@pytest.mark.parametrize("stored_bytes", [0, -1, MANIFEST_LIMIT_BYTES + 1])
def test_refuses_an_impossible_chunk_size(stored_bytes: int) -> None:
    facts, _, blobs = lines_and_chunks()

    with pytest.raises(Invalid, match="the size of a chunk"):
        parse_manifest(line(facts) + line({"chunks": [[E0[0], stored_bytes, E0[2]]]}) + blobs)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda blobs: blobs[:-1], "bytes, not"),
        (lambda blobs: blobs + b"x", "bytes, not"),
        (lambda blobs: b"\0" * len(blobs), "cannot be inflated"),
        (lambda blobs: blobs[:-1] + bytes([blobs[-1] ^ 1]), "inflated"),
    ],
)
def test_refuses_truncated_or_corrupt_chunks(
    change: Callable[[bytes], bytes], problem: str
) -> None:
    facts, chunks, blobs = lines_and_chunks()

    with pytest.raises(Invalid, match=problem):
        parse_manifest(line(facts) + line(chunks) + change(blobs))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"{}", "not a list"),
        (b"[]", "contains no file"),
        (b"[[1]]", "not rows"),
        (b"\xff", "not JSON"),
        (b"[NaN]", "NaN"),
        ("[]".encode("utf-16"), "not JSON"),
        (b"[" + b"[]," * (2 * MARKS_LIMIT) + b"[]]", "brackets and commas"),
    ],
    ids=["object", "empty", "no rows", "bytes", "NaN", "UTF-16", "bomb"],
)
def test_refuses_a_chunk_with_invalid_content(text: bytes, problem: str) -> None:
    facts, _, _ = lines_and_chunks()
    blob = chunk(text)
    listed = [[E0[0], len(blob), E0[2]]]
    facts["revision"] = revision_of_chunks([E0[0]])

    with pytest.raises(Invalid, match=problem):
        parse_manifest(line(facts) + line({"chunks": listed}) + blob)


ONE = File("b", 5, 10, "0" * 64, "0644", 31)


@pytest.mark.parametrize(
    ("said", "files", "problem"),
    [
        ({"digest": ABSENT}, [ONE], "do not match its digest"),
        ({}, [ONE._replace(path="c")], "do not match its digest"),
        ({}, [ONE._replace(sha256="1" * 64)], "do not match its digest"),
        ({}, [ONE._replace(mode="0755")], "do not match its digest"),
        ({}, [ONE._replace(stored_bytes=6)], "takes 37 bytes of the bundle"),
        ({"bundled_bytes": 37}, [ONE], "takes 36 bytes of the bundle"),
    ],
)
def test_refuses_a_chunk_that_contradicts_the_list(
    said: dict[str, Any], files: list[File], problem: str
) -> None:
    honest, _ = make_chunk([ONE])
    text = inflate(make_chunk(files)[1], 1_000)

    with pytest.raises(Invalid, match=problem):
        read_chunk(honest.entry._replace(**said), text, 0)


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"\0"])
def test_refuses_a_chunk_with_missing_or_extra_bytes(change: Callable[[bytes], bytes]) -> None:
    with pytest.raises(Invalid, match="does not end where it should"):
        inflate(change(make_chunk([ONE])[1]), 1_000)


@pytest.mark.parametrize("limit_bytes", [0, 1, 99])
def test_inflates_a_chunk_only_up_to_the_limit(limit_bytes: int) -> None:
    data = zlib.compress(bytes(100))

    assert "too long" in str(raised(Invalid, inflate, data, limit_bytes))
    assert bytes(100) == inflate(data, 100)


def test_refuses_a_huge_chunk_without_filling_the_memory() -> None:
    facts, _, _ = lines_and_chunks()
    facts["revision"] = revision_of_chunks([E0[0]])
    huge = bytes(256 << 20)
    blob = zlib.compress(huge, 1)
    data = line(facts) + line({"chunks": [[E0[0], len(blob), E0[2]]]}) + blob
    tracemalloc.start()
    try:
        with pytest.raises(Invalid, match="too long"):
            parse_manifest(data)
        assert tracemalloc.get_traced_memory()[1] < 3 * len(huge) / 4
    finally:
        tracemalloc.stop()


ROWS: list[list[Any]] = [[f"f{n:03}", 0, 0, "0" * 64, "0644"] for n in range(200)]


def test_refuses_chunks_that_end_at_other_names() -> None:
    """Otherwise one content could have many revisions."""
    good = chunk_ends([row[0] for row in ROWS])
    assert 200 == len(parse_manifest(manifest_of(ROWS)).files)
    for ends in ([200], [*good[:-2], 200], [1, *good]):
        with pytest.raises(Invalid, match="end where its file names require"):
            parse_manifest(manifest_of(ROWS, ends=ends))


def test_refuses_a_duplicate_name_in_a_json_object() -> None:
    first, rest = RELEASE.manifest_bytes.split(b"\n", 1)
    twice = first[:-1] + b', "format": 2}'

    with pytest.raises(Invalid, match="duplicate name"):
        parse_manifest(twice + b"\n" + rest)


def test_ignores_unknown_fields() -> None:
    facts, chunks, blobs = lines_and_chunks()
    data = line(facts | {"new": [1]}) + line(chunks | {"new": {}}) + blobs

    assert RELEASE.manifest == parse_manifest(data)


def test_files_are_sorted_across_chunks() -> None:
    manifest = make_release(MANY).manifest

    assert list(manifest.files) == sorted(MANY)
    assert all(a.files[-1].path < b.files[0].path for a, b in pairwise(manifest.chunks))
