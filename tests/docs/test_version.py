"""
Every file has the same version.
"""

from __future__ import annotations

import re
import tomllib

from sidecar_runtime import __version__
from tests.docs.code import ROOT


def test_projects_and_changelog_have_the_version_of_the_code() -> None:
    others = [ROOT / name / "pyproject.toml" for name in ("airflow-bundle", "runtime")]
    projects = [*ROOT.glob("sidecars/*/pyproject.toml"), *others]
    released = re.findall(
        r"^## \[(\d[^]]*)\] - ", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )

    assert {__version__} == {
        tomllib.loads(project.read_text())["project"]["version"] for project in projects
    }
    assert __version__ == released[0]
