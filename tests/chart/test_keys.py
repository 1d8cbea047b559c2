"""
A misspelled key in any file causes a complaint that names the key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from tests.chart import files
from tests.chart.files import OBJECTS, PATCHES, VALUES
from tests.chart.rules import checks, objects
from tests.chart.rules.sidecars import Values
from tests.conftest import Counts


def keys(node: Any, seen: set[int] | None = None) -> Iterator[tuple[Values, str]]:
    """
    Yield every map and key once, even if several aliases refer to it.
    """
    seen = set() if seen is None else seen
    if isinstance(node, (dict, list)) and id(node) not in seen:
        seen.add(id(node))
        if isinstance(node, dict):
            yield from ((node, key) for key in node)
        for child in node.values() if isinstance(node, dict) else node:
            yield from keys(child, seen)


def unnoticed(
    everything: Any, complaints: Callable[[], Iterable[str]], step: int
) -> Iterator[tuple[str, list[str]]]:
    """
    Misspell every n-th key in turn; yield the keys that no complaint names.

    The checks stop at the first complaint that names the key: the costly ones run last.
    """
    for holder, key in list(keys(everything))[::step]:
        before = list(holder.items())
        slip = f"{key}Slip"
        holder.clear()
        holder.update({slip if name == key else name: value for name, value in before})
        found: list[str] = []
        is_named = any(found.append(one) or key in one for one in complaints())
        holder.clear()
        holder.update(before)
        if not is_named:
            yield key, found


@checks.needs_chart
@pytest.mark.parametrize("name", VALUES)
def test_reports_a_misspelled_key_in_values(name: str, counts: Counts) -> None:
    values = files.load(name)

    def complaints() -> Iterator[str]:
        merged = next(files.stacks(name, values))
        yield from checks.unknown_keys(merged)
        yield from checks.complaints(merged)
        yield from checks.schema_complaints(merged)

    assert [] == list(complaints())
    assert [] == list(unnoticed(values, complaints, counts.keys))


@pytest.mark.parametrize("name", OBJECTS)
def test_reports_a_misspelled_key_in_an_object(name: str, counts: Counts) -> None:
    for thing in files.load_objects(name):

        def complaints(thing: Values = thing) -> list[str]:
            return objects.complaints(thing)

        assert [] == complaints()
        if thing["kind"] != "ConfigMap":  # its keys are file names
            assert [] == list(unnoticed(thing, complaints, 1))


@pytest.mark.parametrize("name", PATCHES)
def test_reports_a_misspelled_key_in_a_patch(name: str) -> None:
    patch = files.load(name)

    def complaints() -> list[str]:
        return objects.patch_complaints(patch)

    assert [] == complaints()
    assert [] == list(unnoticed(patch, complaints, 1))
