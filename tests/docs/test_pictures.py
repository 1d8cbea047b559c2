"""
The pictures of the documentation are small, in use, and have alternative texts.
"""

import re
from pathlib import Path

import pytest

from tests.docs.code import ROOT
from tests.docs.test_reference import DOCUMENTS

MOST_BYTES = 60_000
PICTURES = sorted(p for p in (ROOT / "docs").rglob("*.*") if p.suffix in (".png", ".svg"))


def shown() -> dict[Path, str]:
    """
    Return the alternative text of each picture in the documents.
    """
    found = {}
    for document in DOCUMENTS:
        for text, link in re.findall(r"!\[([^\]]*)\]\(([^)\s]+)\)", document.read_text()):
            found[(document.parent / link).resolve()] = text
    return found


@pytest.mark.parametrize("picture", PICTURES, ids=lambda path: path.name)
def test_picture_is_small_in_use_and_has_alternative_text(picture: Path) -> None:
    assert picture.stat().st_size < MOST_BYTES
    assert len(shown().get(picture, "").split()) > 5


def test_each_status_page_has_a_picture() -> None:
    names = {picture.stem for picture in PICTURES}

    for sidecar in ("s3-sync", "sync-perm", "kerberos", "git-sync-wrapper"):
        assert f"status-page-{sidecar}-failing" in names
