"""
The scripts: the assets of a release, and the tag of a weekly build.
"""

import os
import re
import subprocess
from pathlib import Path

import yaml

from tests import ROOT
from tests.support.scripts import script

REGISTRY = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/data"


def test_release_assets_are_wheels_and_values_with_the_registry(tmp_path: Path) -> None:
    """
    `make wheels` needs .venv, so a stand-in for make writes a wheel.
    """
    copy = tmp_path / "copy"
    programs = tmp_path / "bin"
    subprocess.run(["git", "clone", "--quiet", "--shared", ROOT, copy], check=True)
    programs.mkdir()
    script(programs / "make", "mkdir -p dist/wheels && touch dist/wheels/one.whl")
    (version,) = re.findall(
        r'^version = "(.+)"$',
        (ROOT / "sidecars/s3-sync/pyproject.toml").read_text(),
        re.MULTILINE,
    )
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "REGISTRY": f"{REGISTRY}/",
    }
    command = [copy / "scripts/release-assets"]

    subprocess.run(
        [*command, version], env=environment, check=True, capture_output=True
    )
    refused = subprocess.run(
        [*command, "9.9"], env=environment, capture_output=True, text=True
    )

    assert f"This commit is version {version}, not 9.9" in refused.stderr
    release = copy / "dist/release"
    archive = f"values-{version}.tar.gz"
    assert {"one.whl", archive, "notes.txt"} == {
        path.name for path in release.iterdir()
    }
    subprocess.run(["tar", "-xf", release / archive, "-C", tmp_path], check=True)
    files = [
        path.read_text() for path in (tmp_path / "charts-snippets").rglob("*.yaml")
    ]
    lines = [line for text in files for line in text.splitlines()]
    # the users' own images
    theirs = [line for line in lines if "registry.example.com" in line]
    assert theirs
    assert [] == [line for line in theirs if not re.search("/(your-task|dbt):", line)]
    assert any(line.endswith(f"registry: {REGISTRY}") for line in lines)


def test_a_week_later_the_newest_tag_is_built_again_under_a_tag_of_its_own(
    tmp_path: Path,
) -> None:
    steps = yaml.safe_load((ROOT / ".github/workflows/release.yaml").read_text())[
        "jobs"
    ]["images"]["steps"]
    (choose,) = [one["run"] for one in steps if "git tag" in one.get("run", "")]
    newest = "*--sort=-version:refname) echo 0.10.0; echo 0.9.0;;"
    script(tmp_path / "git", f'case "$*" in {newest} esac')
    script(tmp_path / "date", 'test "$*" = "-u +%Y%m%d" && echo 20261130')

    subprocess.run(
        ["bash", "-ec", choose],
        env={
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "GITHUB_ENV": str(tmp_path / "chosen"),
        },
        check=True,
    )

    assert "TAG=0.10.0-20261130\n" == (tmp_path / "chosen").read_text()
