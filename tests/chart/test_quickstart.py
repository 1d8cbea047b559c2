"""
`make quickstart` with fake programs that record their calls.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.scripts import script

ROOT = Path(__file__).parents[2]


@dataclass
class Programs:
    """
    Fakes of the programs that the script calls; each call is a line of the file `calls`.
    """

    folder: Path

    def __post_init__(self) -> None:
        for name in ("kubectl", "helm", "kind", "podman"):
            script(
                self.folder / name,
                f"""
                echo "{name} $*" >>"$CALLS"
                case "$*" in
                  "config current-context") echo "$CURRENT" ;;
                  *--filename\\ -) cat >/dev/null ;;
                esac
                """,
            )

    def run(self, current: str, **variables: str) -> tuple[int, list[str], str]:
        """
        Run the script; return its exit code, the calls, and its standard error.
        """
        calls = self.folder / "calls"
        calls.write_text("")
        given = {"CALLS": str(calls), "CURRENT": current, "BUILDER": "podman"}
        done = subprocess.run(
            [ROOT / "scripts/quickstart"],
            env={"PATH": f"{self.folder}:/usr/bin:/bin", **given, **variables},
            capture_output=True,
            text=True,
        )
        return done.returncode, calls.read_text().splitlines(), done.stderr


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    return Programs(tmp_path)


def test_installs_the_chart_on_the_current_kind_cluster(programs: Programs) -> None:
    code, calls, said = programs.run("kind-trial")

    assert 0 == code, said
    (loaded,) = (call for call in calls if call.startswith("kind "))
    assert loaded.startswith("kind load image-archive --name trial ")
    (installed,) = (call for call in calls if call.startswith("helm "))
    assert "airflow --repo https://airflow.apache.org --version 1.22.0" in installed
    assert "--values charts-snippets/quickstart/values.yaml" in installed
    assert all(
        "--context kind-trial" in call or call == "kubectl config current-context"
        for call in calls
        if call.startswith("kubectl ") and "--dry-run" not in call
    )


def test_running_it_again_publishes_again_and_replaces_the_pods(programs: Programs) -> None:
    _, calls, _ = programs.run("kind-trial")

    removed = next(i for i, call in enumerate(calls) if "delete job publish" in call)
    assert "--ignore-not-found" in calls[removed]
    assert "apply --filename charts-snippets/quickstart/s3.yaml" in calls[removed + 1]
    (installed,) = (call for call in calls if call.startswith("helm "))
    assert re.search(r"--set-string airflowPodAnnotations\.installed=\d+ ", installed)


def test_refuses_a_current_cluster_that_is_not_kind(programs: Programs) -> None:
    production = "arn:aws:eks:eu-central-1:111122223333:cluster/prd"

    code, calls, said = programs.run(production)

    assert 0 != code
    assert production in said
    assert ["kubectl config current-context"] == calls


def test_uses_the_given_context_image_loader_and_chart(programs: Programs) -> None:
    chosen = {"CONTEXT": "dev", "LOAD_IMAGE": "kind load elsewhere", "AIRFLOW_CHART": "/chart"}

    code, calls, said = programs.run("kind-trial", **chosen)

    assert 0 == code, said
    assert any(call.startswith("kind load elsewhere ") for call in calls)
    assert any(call.startswith("helm ") and " /chart --kube-context dev" in call for call in calls)
    assert not any("kind-trial" in call for call in calls)
