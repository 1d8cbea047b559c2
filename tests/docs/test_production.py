"""
The production page states the memory of the snippets and the ports of the settings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from docs.sidecars import SIDECARS, Documented
from sidecar_runtime.settings import specs_of
from tests.docs.code import ROOT

PAGE = (ROOT / "docs/how-to/run-in-production.md").read_text()


def resources(node: Any) -> Iterator[tuple[str, str]]:
    """
    Yield the memory request and limit of every container in nested values.
    """
    if isinstance(node, dict):
        if "resources" in node:
            found = node["resources"]
            yield found["requests"]["memory"], found["limits"]["memory"]
        node = list(node.values())
    if isinstance(node, list):
        for inner in node:
            yield from resources(inner)


@pytest.mark.parametrize("sidecar", SIDECARS, ids=lambda sidecar: sidecar.name)
def test_the_page_states_the_memory_of_the_snippets_and_default_port(sidecar: Documented) -> None:
    snippets = sorted((ROOT / "charts-snippets").glob(f"{sidecar.name}.*.yaml"))
    stated = {found for path in snippets for found in resources(yaml.safe_load(path.read_text()))}
    row = re.search(rf"^\| {sidecar.name} \| (\w+), (\w+) \|", PAGE, re.MULTILINE)
    port = str(specs_of(sidecar.settings, sidecar.prefix)["http_bind"].default).removeprefix(":")

    assert row
    assert {(row[1], row[2])} == stated
    assert f"{port} for {sidecar.name}" in PAGE
