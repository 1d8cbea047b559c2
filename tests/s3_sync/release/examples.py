"""Examples of releases."""

import json
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from tests.support.releases import make_release

RELEASE = make_release(
    {"a.py": b"print()\n", "sql/b.sql": b"select 1;\n" * 99, "ü/empty": b""},
    executable={"a.py"},
    history=("0123456789ab",),
)

Facts = dict[str, Any]

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


def manifest_facts() -> Facts:
    facts: Facts = json.loads(RELEASE.manifest_bytes)
    return facts


def without(name: str) -> Callable[[Facts], object]:
    return lambda facts: facts.pop(name)


def with_(name: str, value: object) -> Callable[[Facts], object]:
    return lambda facts: facts.__setitem__(name, value)


BAD_FACTS = [
    with_("format", 2), with_("format", True), with_("format", "1"), without("format"),
    without("revision"), with_("revision", "../../../etc"), with_("revision", "D1DC912C81B9"),
    with_("revision", "d1dc912c81b9\n"), with_("revision", 123456789012),
]  # fmt: skip
