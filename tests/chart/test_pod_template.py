"""
What the real KubernetesPodOperator makes of the pod template.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.chart import files, objects, pods
from tests.chart.kubernetes import strict_complaints
from tests.chart.sidecars import Values, environment
from tests.support.airflow import Airflow

TEMPLATE = "objects/pod-template.yaml"
MAKE = Path(__file__).parents[1] / "support" / "operator_pod.py"
KUBECONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "it",
    "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
    "clusters": [{"name": "it", "cluster": {"server": "http://127.0.0.1:1"}}],
    "users": [{"name": "it", "user": {}}],
}


# The first one installs Airflow, which takes minutes.
pytestmark = pytest.mark.timeout(1_800)


@pytest.fixture(scope="module", params=["2.11", "3"])
def pod(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Values:
    """
    The pod that the operator of one Airflow asks Kubernetes for.
    """
    airflow = Airflow.install_or_skip(request.param)
    home = tmp_path_factory.mktemp("home")
    kubeconfig = home / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(KUBECONFIG))
    done = subprocess.run(
        [airflow.bin / "python", "-P", MAKE, files.SNIPPETS / TEMPLATE, kubeconfig],
        env=airflow.environment(f"sqlite:///{home}/airflow.db", home),
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    (line,) = (one for one in done.stdout.splitlines() if one.startswith("POD "))
    made: Values = json.loads(line.removeprefix("POD "))
    return made


def test_operator_keeps_the_native_sidecar(pod: Values) -> None:
    (template,) = files.load_objects(TEMPLATE)

    assert template["spec"]["initContainers"] == pod["spec"]["initContainers"]
    assert {"kerberos": "native"} == pods.kinds(pod["spec"])
    assert "Never" == pod["spec"]["restartPolicy"]


def test_operator_fills_in_base_and_keeps_its_ticket(pod: Values) -> None:
    (base,) = pod["spec"]["containers"]

    assert ("base", "registry.example.com/report:1.4.0") == (base["name"], base["image"])
    assert ["python", "-m", "report"] == base["command"]
    assert {
        "KRB5_CONFIG": "/etc/krb5/krb5.conf",
        "KRB5CCNAME": "FILE:/var/kerberos-ccache/cache",
        "REPORT": "daily",
    } == environment(base)


def test_pod_of_the_operator_is_sound(pod: Values) -> None:
    made = {**pod, "metadata": {"name": pod["metadata"]["name"]}}

    assert [] == strict_complaints(made)
    assert [] == objects.complaints(made)
    assert [] == [
        *pods.volume_complaints(pod["spec"]),
        *pods.keytab_complaints(pod["spec"]),
        *pods.sharing_complaints(pod["spec"]),
        *pods.restricted_complaints(pod["spec"]),
    ]
