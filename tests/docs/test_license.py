"""
Every project and every image names its license, and projects contain its text.
"""

from __future__ import annotations

import tomllib

import pytest

from tests.docs.code import ROOT

TEXT = (ROOT / "LICENSE").read_text()


@pytest.mark.parametrize(
    "folder",
    [
        "airflow-bundle",
        "runtime",
        *(str(p.parent.relative_to(ROOT)) for p in ROOT.glob("sidecars/*/*.toml")),
    ],
)
def test_every_project_names_and_contains_the_license(folder: str) -> None:
    project = tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]

    assert "Apache-2.0" == project["license"]
    assert [TEXT] == [(ROOT / folder / name).read_text() for name in project["license-files"]]


def test_every_image_names_the_license() -> None:
    for dockerfile in ROOT.glob("sidecars/*/Dockerfile"):
        assert 'org.opencontainers.image.licenses="Apache-2.0"' in dockerfile.read_text()
