"""
Runs the steps of the pipelines in charts-snippets/ci, read from their files.

`make push`, `podman` and `git` are real, with a registry like ECR and the tiny image of
`test_push.py`. Lint, tests, bills of materials and Kubernetes are fakes that record their calls.
Only Jenkins and GitHub can run stages, conditions, credentials and actions: those are not tested.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from scripts import lint_ci
from tests.images import test_push
from tests.images.test_push import ECR, Project
from tests.support.registry import Registry

pytestmark = [
    test_push.pytestmark,
    pytest.mark.parametrize("project", ["podman"], indirect=True),  # both pipelines use it
]
ecr, project = test_push.ecr, test_push.project
protected, registry = test_push.protected, test_push.registry

CHECKED = ["lint", "test", "image-test", "sbom"]
PROGRAMS = {
    "make": f"""#!/bin/sh
echo "$*" >>"$CALLS"
case $1 in
  {"|".join(CHECKED)}) mkdir -p dist; echo '{{}}' >dist/tiny.cdx.json ;;
  *) exec {shutil.which("make")} "$@" ;;
esac
""",
    "sudo": '#!/bin/sh\nexec "$@"\n',
    "kubectl": """#!/bin/sh
case $1 in
  create) cat "$REGISTRY_AUTH_FILE"; echo "$*" >>"$CALLS" ;;
  apply) cat >"$CALLS.applied" ;;
esac
""",
}


@dataclass(frozen=True)
class Pipeline:
    """
    Args:
        shell: The command that runs a step in its CI.
        variables: The variables in the file.
        steps: The scripts, in order.
    """

    shell: tuple[str, ...]
    variables: dict[str, str]
    steps: list[str]


def jenkins() -> Pipeline:
    text = (lint_ci.CI / "Jenkinsfile").read_text()
    (settings,) = re.findall(r"environment \{(.*?)\n    \}", text, re.DOTALL)
    variables = re.findall(r"""^\s*(\w+) = ['"](.*)['"]$""", settings, re.MULTILINE)
    steps = re.findall(r"\bsh '''(.*?)'''|\bsh '([^'\n]*)'", text, re.DOTALL)
    scripts = [(block or line).replace("\\\\", "\\") for block, line in steps]
    return Pipeline(("sh", "-xe"), dict(variables), scripts)


def github() -> Pipeline:
    said = yaml.safe_load((lint_ci.CI / "github-actions.yaml").read_text())
    steps = [step for job in said["jobs"].values() for step in job["steps"]]
    scripts = [step["run"] for step in steps if "run" in step]
    return Pipeline(("bash", "-eo", "pipefail"), said["env"], scripts)


@pytest.fixture
def calls(project: Project, registry: Registry, tmp_path: Path) -> Path:
    """
    The file in which the fakes on PATH record their calls.
    """
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in PROGRAMS.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    ci = project.folder / "charts-snippets/ci"
    ci.mkdir(parents=True)
    (ci / "publisher.Dockerfile").write_text(
        "ARG AIRFLOW_IMAGE\nFROM ${AIRFLOW_IMAGE}\nCOPY sidecars/tiny/content /content\n"
    )
    project.commit()
    return tmp_path / "calls"


def run(pipeline: Pipeline, project: Project, calls: Path) -> None:
    """
    Run every step in turn, in the same folder.
    """
    path = f"{calls.with_name('bin')}:{test_push.ROOT}/.venv/bin"
    workspace = calls.with_name("workspace")
    variables = {
        name: text.replace("${WORKSPACE_TMP}", str(workspace))
        for name, text in pipeline.variables.items()
    } | {
        # The values that the files ask users to change.
        "REGISTRY": f"{ECR}/{pipeline.shell[0]}",
        "AIRFLOW_IMAGE": project.variables["BASE_IMAGE"],
        "CALLS": str(calls),
    }
    for script in pipeline.steps:
        project.succeed(
            "env", "bash", "-c", f'PATH={path}:$PATH exec "$@"', "-", *pipeline.shell, "-c", script,
            **variables,
        )  # fmt: skip


@pytest.mark.parametrize("pipeline", [jenkins(), github()], ids=["jenkins", "github"])
def test_pipeline_runs_the_checks_and_then_pushes_the_commit(
    pipeline: Pipeline, ecr: Project, calls: Path, protected: Registry
) -> None:
    run(pipeline, ecr, calls)

    tag = ecr.succeed("git", "rev-parse", "--short=12", "HEAD").strip()
    said = [line for line in calls.read_text().splitlines() if not line.startswith("create")]
    assert [*CHECKED, "push"] == said
    for name in ("tiny", "dag-publisher"):
        assert [tag] == protected.tags(f"{pipeline.shell[0]}/{name}")


def test_jenkins_stores_the_login_in_the_cluster_only(ecr: Project, calls: Path) -> None:
    run(jenkins(), ecr, calls)

    assert [ECR] == [*json.loads(calls.with_name("calls.applied").read_text())["auths"]]
    assert [] == [*calls.with_name("workspace").iterdir()]


def test_a_failed_step_stops_the_pipeline_before_the_push(ecr: Project, calls: Path) -> None:
    (calls.with_name("bin") / "make").write_text(
        '#!/bin/sh\necho "$*" >>"$CALLS"\n[ $1 != test ]\n'
    )

    with pytest.raises(AssertionError):
        run(github(), ecr, calls)

    assert ["lint", "test"] == calls.read_text().splitlines()
