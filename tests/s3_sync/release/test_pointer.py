"""Parsing and serializing the pointer of a release."""

import json
from collections.abc import Callable

import pytest

from s3_sync.release.facts import TEXT_LIMIT_CHARACTERS, Origin
from s3_sync.release.manifest import MANIFEST_LIMIT_BYTES, parse_manifest
from s3_sync.release.pointer import (
    HISTORY_LIMIT,
    PLACE_LIMIT_CHARACTERS,
    POINTER_LIMIT_BYTES,
    Pointer,
    Turn,
    parse_pointer,
    serialize_pointer,
)
from s3_sync.release.rows import Invalid
from tests.s3_sync.release.examples import BAD_FACTS, RELEASE, Facts, with_, without
from tests.support.s3_sync.releases import ABSENT, AT

TURN = {"revision": ABSENT, "sequence": 1, "since": "2026-11-20T15:00:00Z"}
BAD_HISTORIES: list[object] = [["x"], [[ABSENT]], [{}], [ABSENT], None]
LONG_HISTORY = [TURN | {"sequence": 50 - n} for n in range(HISTORY_LIMIT + 1)]
BAD_SIZES = [0, True, MANIFEST_LIMIT_BYTES + 1]


def pointer_facts() -> Facts:
    facts: Facts = json.loads(RELEASE.pointer_bytes)
    return facts


def test_a_pointer_round_trips() -> None:
    assert parse_pointer(RELEASE.pointer_bytes) == RELEASE.pointer


def test_shortens_long_texts_and_the_history() -> None:
    origin = Origin(*["😀" * 2_000] * 6)
    place = "😀" * PLACE_LIMIT_CHARACTERS
    turns = tuple(Turn(ABSENT, n, AT, n - 1, place) for n in range(50, 0, -1))
    turn = RELEASE.pointer.turn._replace(sequence=51, promoted_from=place * 9)
    pointer = RELEASE.pointer._replace(turn=turn, origin=origin, history=turns)

    data = serialize_pointer(pointer)

    assert len(data) < POINTER_LIMIT_BYTES
    found = parse_pointer(data)
    assert turns[:HISTORY_LIMIT] == found.history
    assert place == found.turn.promoted_from
    assert "😀" * TEXT_LIMIT_CHARACTERS == found.origin.message == found.origin.by


def test_ignores_invalid_values_that_are_only_informative() -> None:
    facts = pointer_facts() | {"git": "none", "ci_url": 3, "published_by": None, "new": {"a": 1}}
    facts["promoted_from"] = ["s3://"]

    found = parse_pointer(json.dumps(facts).encode())

    assert (Origin(), "") == (found.origin, found.turn.promoted_from)


@pytest.mark.parametrize(
    "spoil",
    [
        *BAD_FACTS,
        without("manifest"),
        with_("manifest", []),
        *(with_("manifest", {"head_bytes": 1, "size_bytes": size}) for size in BAD_SIZES),
        *(with_("manifest", {"head_bytes": size, "size_bytes": 9}) for size in (0, 10, "1")),
        with_("manifest", {"head_bytes": 1, "size_bytes": 9, "sha256": "A" * 64}),
        without("since"),
        *(with_("since", at) for at in ("yesterday", 1_700_000_000, "2026-11-20T15:00:00")),
        without("sequence"),
        *(with_("sequence", found) for found in (0, -1, True, 1.5, "2", 1 << 53, 1)),
        *(with_("restores", found) for found in (0, 2, "1", True, None)),
        without("history"),
        *(with_("history", found) for found in BAD_HISTORIES),
        with_("history", [TURN, TURN]),
        with_("history", [TURN | {"sequence": 2}]),
        lambda facts: facts.update(sequence=99, history=LONG_HISTORY),
        *(with_("history", [TURN | bad]) for bad in ({"since": ""}, {"revision": ABSENT[1:]})),
    ],
)
def test_refuses_an_invalid_pointer(spoil: Callable[[Facts], object]) -> None:
    facts = pointer_facts()
    spoil(facts)

    with pytest.raises(Invalid):
        parse_pointer(json.dumps(facts).encode())


@pytest.mark.parametrize(
    "data",
    [b"", b"null", b"[]", b"{", b"\xff\xfe", b"[" * 100_000, b"9" * 5_000,
     b" " * (64 << 10) + RELEASE.pointer_bytes, RELEASE.pointer_bytes.decode().encode("utf-16"),
     b'{"format": 2, "format": 2}', b"\xef\xbb\xbf" + RELEASE.pointer_bytes],
    ids=["empty", "null", "list", "half", "bytes", "deep", "long number", "too long", "UTF-16",
         "twice", "mark"],
)  # fmt: skip
def test_refuses_data_that_is_not_a_json_object(data: bytes) -> None:
    for parse in (parse_pointer, parse_manifest):
        with pytest.raises(Invalid):
            parse(data)


def pointer_of(*turns: tuple[int, str, int]) -> Pointer:
    """Return a pointer with turns of sequence, release and restored sequence, newest first."""
    first, *others = (Turn(name, n, AT, restores) for n, name, restores in turns)
    return RELEASE.pointer._replace(turn=first, history=tuple(others))


@pytest.mark.parametrize(
    ("turns", "previous"),
    [
        ([(1, "A", 0)], None),
        ([(2, "B", 0), (1, "A", 0)], "A"),
        ([(3, "A", 1), (2, "B", 0), (1, "A", 0)], None),
        ([(4, "B", 2), (3, "C", 0), (2, "B", 0), (1, "A", 0)], "A"),
        ([(5, "D", 0), (4, "B", 2), (3, "C", 0), (2, "B", 0), (1, "A", 0)], "B"),
        ([(6, "B", 4), (5, "D", 0), (4, "B", 2), (3, "C", 0), (2, "B", 0), (1, "A", 0)], "A"),
        ([(9, "B", 2), (8, "C", 0)], None),
        ([(9, "X", 0), (8, "C", 0)], "C"),
    ],
)
def test_a_rollback_never_leads_to_the_release_that_was_just_left(
    turns: list[tuple[int, str, int]], previous: str | None
) -> None:
    found = pointer_of(*turns).previous

    assert previous == (found and found.revision)
