"""A principal for each DAG: the documented hook in the KubernetesExecutor of a real Airflow."""

import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.chart.files import load
from tests.scenarios.s3_sync.airflow.test_task_pods import Given, Pod, create

PAGE = Path(__file__).parents[3] / "docs/how-to/give-each-dag-its-own-principal.md"
SALES, FINANCE, DEFAULT = (
    "kerberos-keytab-sales",
    "kerberos-keytab-finance",
    "airflow-kerberos-keytab",
)


def hook(ids: str = "sales*") -> str:
    """Return the hook of the page, with another pattern for the DAGs of the principal sales."""
    (found,) = re.findall(
        r"^    ```python\n(.*?)^    ```", PAGE.read_text(), re.DOTALL | re.MULTILINE
    )
    assert '"sales*"' in found
    return textwrap.dedent(found).replace('"sales*"', f'"{ids}"')


@dataclass(frozen=True)
class Task(Given):
    """
    A task of the DAG `sales`, in a pod with the kerberos sidecar.

    Args:
        base: Fields to add to the task's container.
        volume: A volume to add to the pod.
    """

    published: str | None = None
    base: Mapping[str, Any] = field(default_factory=dict)
    volume: Mapping[str, Any] | None = None

    def template(self) -> Pod:
        pod: Pod = load("objects/pod-template.yaml")
        pod["spec"]["containers"][0] |= {"image": "apache/airflow:3.3.2", **self.base}
        pod["spec"]["volumes"] += [self.volume] if self.volume else []
        return pod


STOLEN = {
    "projected": Task(
        volume={"name": "more", "projected": {"sources": [{"secret": {"name": FINANCE}}]}}
    ),
    "default": Task(volume={"name": "more", "secret": {"secretName": DEFAULT}}),
    "variables": Task(base={"envFrom": [{"secretRef": {"name": FINANCE}}]}),
}


def keytab_of(pod: Pod) -> str:
    """Return the name of the Secret that the pod mounts for the sidecar."""
    (found,) = (one for one in pod["spec"]["volumes"] if one["name"] == "krb5-keytab")
    return str(found["secret"]["secretName"])


def principal_of(pod: Pod) -> str:
    (container,) = pod["spec"]["initContainers"]
    (found,) = (one for one in container["env"] if one["name"] == "KERBEROS_PRINCIPAL")
    return str(found["value"])


@pytest.fixture(params=["2.11", "3"])
def airflow(request: pytest.FixtureRequest) -> str:
    if request.param != "2.11" and not request.config.getoption("--full"):
        pytest.skip("other versions of Airflow run with make test-full")
    return str(request.param)


def test_a_task_gets_only_the_keytab_of_its_dag(airflow: str, tmp_path: Path) -> None:
    made = create(airflow, tmp_path, [Task()], hook=hook())

    (pod,) = made.pods
    assert (SALES, "sales@EXAMPLE.COM") == (keytab_of(pod), principal_of(pod))
    assert DEFAULT not in str(pod) and FINANCE not in str(pod)


def test_a_dag_without_a_matching_pattern_keeps_the_keytab_of_the_template(
    airflow: str, tmp_path: Path
) -> None:
    made = create(airflow, tmp_path, [Task()], hook=hook("sale"))

    (pod,) = made.pods
    assert (DEFAULT, "airflow@EXAMPLE.COM") == (keytab_of(pod), principal_of(pod))


@pytest.mark.parametrize("way", STOLEN)
def test_a_task_that_references_another_keytab_secret_does_not_start(
    airflow: str, way: str, tmp_path: Path
) -> None:
    other = DEFAULT if way == "default" else FINANCE
    with pytest.raises(AssertionError, match=f"DAG sales is not allowed to use the Secret {other}"):
        create(airflow, tmp_path, [STOLEN[way]], hook=hook())
