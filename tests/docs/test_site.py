"""
The documentation site contains every page, and its build finds broken links.

`make docs-site` builds it and checks all its links.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from docs import site
from tests.docs.code import ROOT
from tests.docs.test_reference import DOCUMENTS


def test_every_document_is_in_the_navigation_once() -> None:
    nav = tomllib.loads(site.CONFIG.read_text())["project"]["nav"]

    listed = list(site.pages(nav))
    assert set() == {str(path.relative_to(ROOT)) for path in DOCUMENTS} ^ set(listed)
    assert len(listed) == len(set(listed))


@pytest.mark.parametrize(
    ("shape", "instead"),
    [
        (r"^(?: {1,3}| {5,7})```.*", "indent code in a list by four blanks"),
        (r"^\|.*`[^`|]*\\\|[^`]*`.*", "<code>&#124;</code> for a | in the code of a table"),
        (r"^<details>", '<details markdown="1">'),
    ],
)
def test_pages_avoid_markdown_that_github_renders_differently(shape: str, instead: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}: {line}: {instead}"
        for path in DOCUMENTS
        for line in re.findall(shape, path.read_text(), re.MULTILINE)
    ]

    assert [] == found


def test_staged_pages_keep_their_paths_and_linked_files(tmp_path: Path) -> None:
    site.stage(tmp_path / "build", "https://git.example.com/sidecars")

    pages = tmp_path / "build/pages"
    config = tomllib.loads((tmp_path / "build/zensical.toml").read_text())
    for name in ("README.md", "sidecars/s3-sync/README.md", "charts-snippets/values.yaml"):
        assert (ROOT / name).read_text() == (pages / name).read_text()
    assert "https://git.example.com/sidecars" == config["project"]["repo_url"]


@pytest.mark.parametrize(
    "link", ["nowhere/", "../nowhere.svg", "page/#nowhere", "#nowhere", "page/index.html#nowhere"]
)
def test_finds_a_broken_link(link: str, tmp_path: Path) -> None:
    (tmp_path / "page").mkdir()
    (tmp_path / "page/index.html").write_text('<h1 id="here">')
    (tmp_path / "index.html").write_text(f'<h1 id="Über">. <a href="{link}">')

    assert [f"index.html: {link}"] == site.broken_links(tmp_path)


@pytest.mark.parametrize(
    "link", ["page/", "page/#%ED%95%9C%EA%B5%AD", "page", ".", "#Über", "https://example.com/x"]
)
def test_accepts_a_working_link(link: str, tmp_path: Path) -> None:
    (tmp_path / "page").mkdir()
    (tmp_path / "page/index.html").write_text('<h1 id="한국">')
    (tmp_path / "index.html").write_text(f'<h1 id="Über">. <a href="{link}">')

    assert [] == site.broken_links(tmp_path)


@pytest.mark.parametrize(
    ("names", "listed"),
    [
        (["dev"], ["dev"]),
        (["0.9.0", "dev", "0.10.0"], ["0.10.0", "0.9.0", "dev"]),
    ],
)
def test_versions_are_listed_newest_first_and_the_newest_is_shown(
    names: list[str], listed: list[str], tmp_path: Path
) -> None:
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "index.html").touch()

    site.list_versions(tmp_path)

    versions = json.loads((tmp_path / "versions.json").read_text())
    assert listed == [one["version"] for one in versions]
    assert [listed[0]] == [one["version"] for one in versions if one["aliases"] == ["latest"]]
    assert f"url={listed[0]}/" in (tmp_path / "index.html").read_text()
