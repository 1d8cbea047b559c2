"""
The pods that the real KubernetesPodOperator creates from the pod templates.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from sidecar_runtime.parsers import duration
from tests.chart import files, pods
from tests.chart.kubernetes import strict_complaints
from tests.chart.sidecars import Values, environment
from tests.support.airflow.installed import Airflow

TICKET, PROJECT = "objects/pod-template.yaml", "objects/pod-template-project.yaml"
MAKE = Path(__file__).parents[1] / "support/airflow/operator_pod.py"
KUBECONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "it",
    "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
    "clusters": [{"name": "it", "cluster": {"server": "http://127.0.0.1:1"}}],
    "users": [{"name": "it", "user": {}}],
}


# The first test with `made` installs Airflow, which takes minutes.
pytestmark = pytest.mark.timeout(1_800)


@pytest.fixture(scope="module", params=["2.11", "3"])
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Values]:
    """
    The pods that the operator of one Airflow version creates, by template.
    """
    templates = (TICKET, PROJECT)
    airflow = Airflow.install_or_skip(request.param)
    home = tmp_path_factory.mktemp("home")
    kubeconfig = home / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(KUBECONFIG))
    done = subprocess.run(
        [
            *(airflow.bin / "python", "-P", MAKE, kubeconfig),
            *(files.SNIPPETS / template for template in templates),
        ],
        env=airflow.environment(f"sqlite:///{home}/airflow.db", home),
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    lines = [one for one in done.stdout.splitlines() if one.startswith("POD ")]
    found = [json.loads(line.removeprefix("POD ")) for line in lines]
    return dict(zip(templates, found, strict=True))


@pytest.mark.parametrize(
    ("template", "guide"), [(TICKET, "give-a-ticket"), (PROJECT, "give-a-project")]
)
def test_operator_waits_longer_than_the_sidecar_may_take(template: str, guide: str) -> None:
    folder = files.SNIPPETS.parent / "docs/how-to"
    page = (folder / f"{guide}-to-the-kubernetes-pod-operator.md").read_text()
    stated = re.search(r"startup_timeout_seconds=(\d+),", page)
    (container,) = files.load_objects(template)[0]["spec"]["initContainers"]

    probe = container.get("startupProbe", {"periodSeconds": 0, "failureThreshold": 0})
    deadline = environment(container).get("S3_SYNC_ONE_SHOT_DEADLINE", "0")
    allowed = probe["periodSeconds"] * probe["failureThreshold"] + duration()(deadline)
    assert stated
    assert int(stated[1]) > allowed > 0


@pytest.mark.parametrize(
    ("template", "kinds"), [(TICKET, {"kerberos": "native"}), (PROJECT, {"s3-sync": "init"})]
)
def test_operator_keeps_the_sidecar(
    made: dict[str, Values], template: str, kinds: dict[str, str]
) -> None:
    (given,) = files.load_objects(template)
    pod = made[template]

    assert given["spec"]["initContainers"] == pod["spec"]["initContainers"]
    assert kinds == pods.kinds(pod["spec"])
    assert "Never" == pod["spec"]["restartPolicy"]


@pytest.mark.parametrize("template", [TICKET, PROJECT])
def test_operator_fills_in_the_base_container_and_keeps_its_variables(
    made: dict[str, Values], template: str
) -> None:
    (given,) = files.load_objects(template)
    (base,) = made[template]["spec"]["containers"]

    assert ("base", "registry.example.com/report:1.4.0") == (base["name"], base["image"])
    assert ["python", "-m", "report"] == base["command"]
    assert environment(given["spec"]["containers"][0]) | {"REPORT": "daily"} == environment(base)


@pytest.mark.parametrize("template", [TICKET, PROJECT])
def test_pod_of_the_operator_passes_every_check(made: dict[str, Values], template: str) -> None:
    pod = made[template]
    whole = {**pod, "metadata": {"name": pod["metadata"]["name"]}}

    assert [] == strict_complaints(whole)
    assert [] == pods.complaints(pod["spec"])
