"""
The security page names existing tests; claims without their own test are tested here.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.__main__ import metrics
from docs.sidecars import SIDECARS
from tests.docs.code import ROOT

PAGE = (ROOT / "docs/explanation/what-is-defended.md").read_text()
TESTS = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
# Labels with a small, fixed number of values, except the last two.
LABELS = {"reason", "result", "operation", "kind", "status", "name", "version", "revision"}
NAMES = {"principal", "ccache"}
DOCKERFILES = sorted(ROOT.glob("sidecars/*/Dockerfile"))


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(test_\w+)`", PAGE))))
def test_every_named_test_exists(name: str) -> None:
    assert re.search(rf"^(?:async )?def {name}\(", TESTS, re.MULTILINE)


def test_every_defense_names_its_test() -> None:
    rows = re.findall(
        r"^\| .+ \| .+ \| (.+) \|$", PAGE.partition("## What the sidecars")[0], re.MULTILINE
    )

    assert [] == [row for row in rows if row != "test" and "`test_" not in row]


def test_labels_contain_no_names_except_principal_and_ccache() -> None:
    tables = "".join(metrics(sidecar) for sidecar in SIDECARS)
    cells = re.findall(r"^\| `\w+` \| \w+ \| (.*?) \|", tables, re.MULTILINE)

    assert LABELS | NAMES == {label for cell in cells for label in re.findall(r"\w+", cell)}


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.parent.name)
def test_installs_only_packages_pinned_by_hash(dockerfile: Path) -> None:
    """
    Only this repository's own code is installed without hashes, and without dependencies.
    """
    text = dockerfile.read_text().replace("\\\n", " ")
    installs = re.findall(r"pip\b[^&\n]* install ([^&\n]+)", text)
    locks = set(re.findall(r"requirements/([\w-]+\.txt)", text))

    assert installs
    for install in installs:
        assert "--require-hashes" in install or {"--no-deps"} <= set(install.split())
    for lock in locks:
        text = (ROOT / "requirements" / lock).read_text()
        pins = re.findall(r"^[\w.-]+==.*(?:\n .*)*", text, re.MULTILINE)
        assert pins
        assert [] == [pin for pin in pins if "--hash=sha256:" not in pin]
