"""
Every file has the same version, and the upgrade page covers every breaking change.
"""

from __future__ import annotations

import re
import tomllib

from sidecar_runtime import __version__
from tests.docs.code import ROOT


def test_projects_changelog_and_readme_have_the_version_of_the_code() -> None:
    others = [ROOT / name / "pyproject.toml" for name in ("airflow-bundle", "runtime")]
    projects = [*ROOT.glob("sidecars/*/pyproject.toml"), *others]
    released = re.findall(
        r"^## \[(\d[^]]*)\] - ", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )
    readme = (ROOT / "README.md").read_text()

    assert {__version__} == {
        tomllib.loads(project.read_text())["project"]["version"] for project in projects
    }
    assert __version__ == released[0]
    assert {__version__} == set(re.findall(r"registry\.example\.com/[\w-]+:([\w.]+)", readme))


def test_the_upgrade_page_covers_every_breaking_change() -> None:
    changes = (ROOT / "CHANGELOG.md").read_text().partition("\n## [0.1.0]")[0]
    page = (ROOT / "docs/how-to/upgrade-from-0.1-to-0.2.md").read_text()
    breaking = [line for line in changes.splitlines() if "**Breaking:**" in line]

    assert len(breaking) > 10
    for line in breaking:
        names = re.findall(r"`([\w.]+)`", line)
        assert not names or any(f"`{name}`" in page for name in names), line
        for before, after in re.findall(r"`(\w+)` is now `(\w+)`", line):
            assert {before, after} <= set(re.findall(r"\w+", page)), line
