"""
Every link inside the repository resolves, including its anchor.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.code import ROOT
from tests.docs.test_reference import DOCUMENTS


def anchors(path: Path) -> set[str]:
    """
    Return the anchors that GitHub creates for the headings of a document.
    """
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_resolve(path: Path) -> None:
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    broken = []

    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)

    assert [] == broken


def test_every_document_can_be_reached_from_the_readme() -> None:
    seen: set[Path] = set()
    todo = [ROOT / "README.md"]

    while todo:
        path = todo.pop()
        seen.add(path)
        for link in re.findall(r"\]\(([^)#\s]+)", path.read_text()):
            target = (path.parent / link).resolve()
            if target.suffix == ".md" and target.exists() and target not in seen:
                todo.append(target)

    assert [] == [str(path.relative_to(ROOT)) for path in DOCUMENTS if path not in seen]
