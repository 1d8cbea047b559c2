"""Corrupt pointers and manifests: parsing raises no error except `Invalid`."""

import copy
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3_sync.release.manifest import parse_facts, parse_head, parse_manifest
from s3_sync.release.pointer import parse_pointer
from s3_sync.release.rows import Invalid
from tests.support.s3_sync.releases import make_release

HONEST = make_release({"a.py": b"a = 1\n" * 40, "empty.py": b"", "pkg/b.py": b"b = 1\n" * 7})
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
    """Parse a document; allow only `Invalid`, and no path that leads out."""
    try:
        found = DOCUMENTS[name][1](body)
    except Invalid:
        return
    files = getattr(found, "files", {})
    assert not any(".." in path.split("/") or path.startswith("/") for path in files)


@pytest.mark.parametrize("name", DOCUMENTS)
@given(where=POSITIONS, flip=st.integers(1, 255), more=st.binary(max_size=20))
def test_altered_bytes_raise_no_error_except_invalid(
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
def test_random_values_raise_no_error_except_invalid(name: str, where: float, value: Any) -> None:
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
