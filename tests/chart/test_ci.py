"""
The pipelines pass their checks, and the checks catch what they are for.
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
    What GitHub's schema of workflows says of a file.
    """
    program = Path(sys.executable).with_name("check-jsonschema")
    done = subprocess.run(
        [program, "--builtin-schema=vendor.github-workflows", path], capture_output=True, text=True
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_jenkinsfile_is_sound() -> None:
    assert [] == lint_ci.jenkinsfile_complaints(JENKINSFILE)


def test_workflow_is_sound() -> None:
    assert "" == schema_complaints(lint_ci.CI / "github-actions.yaml")
    assert [] == lint_ci.workflow_complaints(WORKFLOW)


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_own_workflow_is_sound(path: Path) -> None:
    assert "" == schema_complaints(path)
    assert [] == lint_ci.workflow_complaints(path.read_text())


def test_own_workflow_runs_what_must_hold_before_a_change_lands() -> None:
    (job,) = yaml.safe_load((lint_ci.OWN_WORKFLOWS / "ci.yaml").read_text())["jobs"].values()

    assert ".ci/run" == job["steps"][-1]["run"]


def test_every_file_is_checked_and_opens_with_three_lines_of_comment() -> None:
    assert {"Jenkinsfile", "github-actions.yaml", "publisher.Dockerfile"} == {
        path.name for path in lint_ci.CI.iterdir()
    }
    for text, mark in ((JENKINSFILE, "//"), (WORKFLOW, "#")):
        first, second, third, fourth = text.splitlines()[:4]
        assert first.startswith(f"{mark} For:")
        assert second.startswith(mark)
        assert third.startswith(f"{mark} Change:")
        assert not fourth.startswith(mark)


def test_both_check_build_test_and_push() -> None:
    for text in (JENKINSFILE, WORKFLOW):
        targets = re.findall(r"\bmake ([a-z-]+)", text)
        assert ["lint", "test", "image-test", "sbom", "push"] == targets


WORDS = [*lint_ci.SECTIONS, *set().union(*lint_ci.STATEMENTS.values())]


@pytest.mark.parametrize("word", sorted(WORDS))
def test_a_word_of_jenkins_that_is_misspelled_is_caught(word: str) -> None:
    mutant = re.sub(rf"^([^/\n]*)\b{word}(?=[ (])", rf"\1{word}x", JENKINSFILE, flags=re.MULTILINE)

    assert mutant != JENKINSFILE
    assert lint_ci.jenkinsfile_complaints(mutant)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("steps {", "steps"),
        ("'make lint'", "'make lint"),
        ("make push", "make posh"),
        ("sh 'make push'", 'sh "make push"'),
        ('"$(dirname "$REGISTRY_AUTH_FILE")"', "$(dirname $REGISTRY_AUTH_FILE)"),
        ('rm -f "$REGISTRY_AUTH_FILE"', 'rm -f "$REGISTRY_AUTHFILE"'),
        ("AIRFLOW_IMAGE = ", "AIRFLOW_IMAGES = "),
        ("kubectl apply --namespace", "kubectl apply --namespace $("),
    ],
)
def test_a_mistake_in_the_jenkinsfile_is_caught(old: str, new: str) -> None:
    assert old in JENKINSFILE

    assert lint_ci.jenkinsfile_complaints(JENKINSFILE.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("make push", "make posh"),
        ("@11bd71901bbe5b1630ceea73d27597364c9af683", "@v4"),
        ("run: make lint", 'run: echo "${{ github.head_ref }}"'),
        ("run: make sbom", "run: cd $DIST"),
        ("  BUILDER:", "  BILDER:"),
        ("persist-credentials:", "persist_credentials:"),
    ],
)
def test_a_mistake_in_the_workflow_is_caught(old: str, new: str) -> None:
    assert old in WORKFLOW

    assert lint_ci.workflow_complaints(WORKFLOW.replace(old, new))
