"""
The CI pipelines pass their checks, and the checks detect mistakes.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from scripts import lint_ci

JENKINSFILE = (lint_ci.CI / "Jenkinsfile").read_text()
WORKFLOW = (lint_ci.CI / "github-actions.yaml").read_text()
OWN = sorted(lint_ci.OWN_WORKFLOWS.iterdir())


def schema_complaints(path: Path) -> str:
    """
    Validate a file against GitHub's workflow schema; return the errors.
    """
    program = Path(sys.executable).with_name("check-jsonschema")
    done = subprocess.run(
        [program, "--builtin-schema=vendor.github-workflows", path], capture_output=True, text=True
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_jenkinsfile_passes_every_check() -> None:
    assert [] == lint_ci.jenkinsfile_complaints(JENKINSFILE)


def test_example_workflow_passes_the_schema_and_every_check() -> None:
    assert "" == schema_complaints(lint_ci.CI / "github-actions.yaml")
    assert [] == lint_ci.workflow_complaints(WORKFLOW)


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_own_workflow_passes_the_schema_and_every_check(path: Path) -> None:
    assert "" == schema_complaints(path)
    assert [] == lint_ci.workflow_complaints(path.read_text())


def test_own_workflow_gets_git_sync_and_the_chart_and_ends_with_the_ci_run_script() -> None:
    (job,) = yaml.safe_load((lint_ci.OWN_WORKFLOWS / "ci.yaml").read_text())["jobs"].values()
    *before, last = [step["run"] for step in job["steps"] if "run" in step]

    assert ".ci/run" == last
    assert ["GIT_SYNC_BIN", "AIRFLOW_CHART"] == re.findall(
        r'echo "(\w+)=\$RUNNER_TEMP/', "".join(before)
    )


def test_every_pipeline_file_is_known_and_starts_with_a_three_line_comment() -> None:
    assert {"Jenkinsfile", "github-actions.yaml", "publisher.Dockerfile"} == {
        path.name for path in lint_ci.CI.iterdir()
    }
    for text, mark in ((JENKINSFILE, "//"), (WORKFLOW, "#")):
        first, second, third, fourth = text.splitlines()[:4]
        assert first.startswith(f"{mark} For:")
        assert second.startswith(mark)
        assert third.startswith(f"{mark} Change:")
        assert not fourth.startswith(mark)


@pytest.mark.parametrize(
    "path",
    [*lint_ci.CI.iterdir(), *(lint_ci.CI.parents[1] / "sidecars").glob("*/Dockerfile")],
    ids=lambda path: f"{path.parent.name}/{path.name}",
)
def test_default_images_name_their_registry(path: Path) -> None:
    """On Debian and Ubuntu, podman searches no registry for `apache/airflow`."""
    images = re.findall(
        r"\b(?:BASE|AIRFLOW|GIT_SYNC)_IMAGE ?[=:] ?'?([^\s']+)'?$", path.read_text(), re.MULTILINE
    )

    assert images
    assert [] == [image for image in images if "." not in image.partition("/")[0]]


def test_both_pipelines_run_the_same_make_targets_in_order() -> None:
    for text in (JENKINSFILE, WORKFLOW):
        targets = re.findall(r"\bmake ([a-z-]+)", text)
        assert ["lint", "test", "image-test", "sbom", "push"] == targets
