"""
Build the documentation site: `python -m docs.site ZENSICAL`, called by
`scripts/docs-site`.

The pages keep their paths in the repository, so links that work on GitHub also work on
the site. Files that the pages link to, such as values, are included.

The output is `dist/site/TAG`; builds of other tags stay, and `dist/site` can be served
as a whole.

TAG: the name of this version, such as 0.3.0 (default: dev).
SOURCE: the web address of the repository, for a link to it.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "docs" / "zensical.toml"


def pages(nav: list[Any]) -> Iterator[str]:
    """
    Yield the paths of the pages in a navigation, in order.
    """
    for entry in nav:
        if isinstance(entry, str):
            yield entry
        else:
            for inner in entry.values():
                yield from pages(inner)


def stage(folder: Path, source: str = "") -> None:
    """
    Copy the configuration, the pages and all files that they link to into a new folder.
    """
    text = CONFIG.read_text()
    shutil.rmtree(folder, ignore_errors=True)
    for page in pages(tomllib.loads(text)["project"]["nav"]):
        for path in (ROOT / page, *_linked(ROOT / page)):
            copy = folder / "pages" / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    if source:
        text = text.replace(
            "[project]\n", f"[project]\nrepo_url = {json.dumps(source)}\n"
        )
    (folder / CONFIG.name).write_text(text)


def _linked(page: Path) -> Iterator[Path]:
    """
    Yield the files other than pages that a page links to.
    """
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for link in re.findall(r"\]\(([^)#\s]+)|(?:src|href)=\"([^\"#]+)\"", text):
        name = "".join(link)
        if not urlsplit(name).scheme and not name.endswith(".md"):
            yield (page.parent / name).resolve()


def list_versions(folder: Path) -> None:
    """
    Write the list for the version selector, and redirect the root to the newest
    release.
    """
    names = sorted(
        (path.parent.name for path in folder.glob("*/index.html")), key=_order
    )
    newest = names[-1]
    listed = [
        {
            "version": name,
            "title": name,
            "aliases": ["latest"] if name == newest else [],
        }
        for name in reversed(names)
    ]
    (folder / "versions.json").write_text(json.dumps(listed, indent=2) + "\n")
    redirect = (
        f'<!doctype html>\n<meta http-equiv="refresh" content="0; url={newest}/">\n'
    )
    (folder / "index.html").write_text(redirect)


def _order(name: str) -> tuple[list[int], str]:
    """
    Return a sort key: releases by their numbers, other names such as dev before all
    releases.
    """
    is_release = re.fullmatch(r"\d+(\.\d+)*", name)
    return ([int(part) for part in name.split(".")] if is_release else [], name)


def main() -> int:
    """
    Build the site; return the exit code: of the generator, which refuses links to pages
    and anchors that do not exist. A file that is missing cannot be copied.
    """
    work = ROOT / ".site"
    site = ROOT / "dist" / "site"
    stage(work / "build", os.environ.get("SOURCE", ""))
    config = str(work / "build" / CONFIG.name)
    command = [sys.argv[1], "build", "--strict", "--config-file", config]
    if code := subprocess.run(command, check=False).returncode:
        return code
    built = site / (os.environ.get("TAG") or "dev")
    shutil.rmtree(built, ignore_errors=True)
    shutil.copytree(work / "build" / "html", built)
    list_versions(site)
    sys.stdout.write(
        f"{built.relative_to(ROOT)}: {sum(1 for _ in built.rglob('*.html'))} pages\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
