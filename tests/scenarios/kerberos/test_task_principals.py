"""
A principal for each DAG: the hook of the documentation, in real Airflow's KubernetesExecutor.
"""

import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.chart.files import load
from tests.scenarios.s3_sync.test_task_pods import Given, Pod, create

PAGE = Path(__file__).parents[3] / "docs/how-to/give-each-dag-its-own-principal.md"
SALES, FINANCE, DEFAULT = (
    "kerberos-keytab-sales",
    "kerberos-keytab-finance",
    "airflow-kerberos-keytab",
)


def hook(ids: str = "sales*") -> str:
    """The hook of the page, with other DAGs for the principal of sales."""
    (found,) = re.findall(
        r"^    ```python\n(.*?)^    ```", PAGE.read_text(), re.DOTALL | re.MULTILINE
    )
    assert '"sales*"' in found
    return textwrap.dedent(found).replace('"sales*"', f'"{ids}"')


@dataclass(frozen=True)
class Task(Given):
    """
    A task of the DAG `sales`, in a pod with kerberos.

    Args:
        base: Added to its own container.
        volume: Added to its volumes.
    """

    published: str | None = None
    base: Mapping[str, Any] = field(default_factory=dict)
    volume: Mapping[str, Any] | None = None

    def template(self) -> Pod:
        pod: Pod = load("objects/pod-template.yaml")
        pod["spec"]["containers"][0] |= {"image": "apache/airflow:3.2.2", **self.base}
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
    """The Secret that is mounted for the sidecar."""
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


def test_a_task_gets_the_keytab_of_its_dag_alone(airflow: str, tmp_path: Path) -> None:
    made = create(airflow, tmp_path, [Task()], hook=hook())

    (pod,) = made.pods
    assert (SALES, "sales@EXAMPLE.COM") == (keytab_of(pod), principal_of(pod))
    assert DEFAULT not in str(pod) and FINANCE not in str(pod)


def test_a_dag_that_no_line_fits_keeps_what_the_template_names(
    airflow: str, tmp_path: Path
) -> None:
    made = create(airflow, tmp_path, [Task()], hook=hook("sale"))

    (pod,) = made.pods
    assert (DEFAULT, "airflow@EXAMPLE.COM") == (keytab_of(pod), principal_of(pod))


@pytest.mark.parametrize("way", STOLEN)
def test_a_task_that_asks_for_anothers_keytab_does_not_start(
    airflow: str, way: str, tmp_path: Path
) -> None:
    other = DEFAULT if way == "default" else FINANCE
    with pytest.raises(AssertionError, match=f"DAG sales is not allowed to use the Secret {other}"):
        create(airflow, tmp_path, [STOLEN[way]], hook=hook())
