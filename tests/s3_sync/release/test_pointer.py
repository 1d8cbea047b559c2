"""The pointer of a release, from and to bytes."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from s3_sync.release.facts import TEXT_LIMIT_CHARACTERS, Origin
from s3_sync.release.manifest import MANIFEST_LIMIT_BYTES, parse_manifest
from s3_sync.release.pointer import (
    HISTORY_LIMIT,
    POINTER_LIMIT_BYTES,
    parse_pointer,
    serialise_pointer,
)
from s3_sync.release.rows import Invalid
from tests.s3_sync.release.examples import BAD_FACTS, RELEASE, Facts, with_, without

REVISION = "0123456789ab"
BAD_SIZES = [0, True, MANIFEST_LIMIT_BYTES + 1]


def pointer_facts() -> Facts:
    facts: Facts = json.loads(RELEASE.pointer_bytes)
    return facts


def test_a_pointer_is_read_as_it_was_written() -> None:
    assert parse_pointer(RELEASE.pointer_bytes) == RELEASE.pointer


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


@pytest.mark.parametrize(
    "spoil",
    [
        *BAD_FACTS,
        without("manifest"),
        with_("manifest", []),
        *(with_("manifest", {"sha256": s, "size_bytes": 1}) for s in ("0" * 63, "G" * 64)),
        *(with_("manifest", {"sha256": "0" * 64, "size_bytes": size}) for size in BAD_SIZES),
        without("published_at"),
        *(with_("published_at", at) for at in ("yesterday", 1_700_000_000)),
        without("history"),
        *(with_("history", found) for found in (["x"], [[REVISION]], [REVISION] * 21)),
    ],
)
def test_what_is_no_pointer_is_refused(spoil: Callable[[Facts], object]) -> None:
    facts = pointer_facts()
    spoil(facts)

    with pytest.raises(Invalid):
        parse_pointer(json.dumps(facts).encode())


@pytest.mark.parametrize(
    "data",
    [b"", b"null", b"[]", b"{", b"\xff\xfe", b"[" * 100_000, b"9" * 5_000,
     b" " * (64 << 10) + b"{}"],
    ids=["empty", "null", "list", "half", "bytes", "deep", "long number", "too long"],
)  # fmt: skip
def test_what_is_no_json_object_is_refused(data: bytes) -> None:
    for parse in (parse_pointer, parse_manifest):
        with pytest.raises(Invalid):
            parse(data)
