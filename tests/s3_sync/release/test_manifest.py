"""The manifest of a release, from and to bytes."""

import json
import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3_sync.digest import revision_of
from s3_sync.keys import refusal_of
from s3_sync.release.facts import MARKS_LIMIT, TEXT_LIMIT_CHARACTERS, Origin, check_bulk
from s3_sync.release.manifest import (
    HEAD_LIMIT_BYTES,
    MANIFEST_LIMIT_BYTES,
    parse_manifest,
    parse_summary,
    serialise_manifest,
)
from s3_sync.release.pointer import parse_pointer
from s3_sync.release.rows import FILES_LIMIT, Invalid
from tests.s3_sync.release.examples import (
    BAD_FACTS,
    RELEASE,
    Facts,
    manifest_facts,
    names,
    with_,
    without,
)
from tests.support.releases import make_release


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
    others = [("c", "1" * 64, False), ("b", "2" * 64, False), ("b", "1" * 64, True)]

    revision = revision_of([one, two])

    assert revision == revision_of([one, two])
    assert 4 == len({revision, *(revision_of([one, other]) for other in others)})


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
def test_an_invalid_head_is_refused(data: bytes) -> None:
    with pytest.raises(Invalid):
        parse_summary(data)


@pytest.mark.parametrize(
    "spoil",
    [
        *BAD_FACTS,
        with_("revision", "0123456789ab"),
        without("created_at"),
        without("bundle"),
        *(with_("bundle", {"sha256": "0" * 64, "size_bytes": size}) for size in (1, -1)),
        with_("bundle", {"sha256": None, "size_bytes": 1_000}),
        without("files"),
        with_("files", {}),
        with_("files", []),
        with_("files", [1]),
        *(with_("files", [row]) for row in ([], ["a"])),
        with_("files", [["a", 34, 0, 0, "0" * 64, "0644", "more"]]),
    ],
)
def test_what_is_no_manifest_is_refused(spoil: Callable[[Facts], object]) -> None:
    facts = manifest_facts()
    spoil(facts)

    with pytest.raises(Invalid):
        parse_manifest(json.dumps(facts).encode())
