"""
sync-perm beside webserver and API server: its snippet's own checks, and the published example.
"""

from __future__ import annotations

import copy
import json
import re

import pytest
import yaml

from tests.chart import checks, files
from tests.chart.files import SNIPPETS
from tests.chart.mutations import Mutation
from tests.chart.sidecars import Values

NAME = "sync-perm.extra.yaml"


def container(values: Values) -> Values:
    """
    The container beside the webserver.
    """
    found: Values = values["webserver"]["extraContainers"][0]
    return found


def published() -> list[Values]:
    """
    The examples of the page: as published, on Airflow 2 and on Airflow 3.
    """
    text = (SNIPPETS / "published-sync-perm.md").read_text()
    return [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]


def test_webserver_and_api_server_get_the_same() -> None:
    values = files.load(NAME)

    assert values.keys() == {"webserver", "apiServer"}
    assert values["webserver"] == values["apiServer"]


MUTATIONS: dict[str, Mutation] = {
    "a connection in the open": lambda v: container(v)["env"].__setitem__(
        0, {"name": "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "value": "postgresql://"}
    ),
    "another Secret": lambda v: container(v)["env"][0]["valueFrom"]["secretKeyRef"].update(
        name="metadata"
    ),
    "no connection": lambda v: container(v)["env"].pop(0),
    "a variable of another sidecar": lambda v: container(v)["env"].append(
        {"name": "S3_SYNC_LAYOUT", "value": "snapshot"}
    ),
    "no airflow.cfg": lambda v: container(v)["volumeMounts"].pop(0),
    "airflow.cfg to write": lambda v: container(v)["volumeMounts"][0].pop("readOnly"),
    "no /tmp": lambda v: container(v)["volumeMounts"].pop(1),
    "a volume that nobody brings": lambda v: v["webserver"].pop("extraVolumes"),
    "no size limit": lambda v: v["webserver"]["extraVolumes"][0]["emptyDir"].pop("sizeLimit"),
    "another port": lambda v: container(v)["ports"][0].update(containerPort=9811),
    "readiness is asked": lambda v: container(v).update(
        readinessProbe=container(v)["livenessProbe"]
    ),
    "one-shot beside the webserver": lambda v: container(v)["env"].append(
        {"name": "SYNC_PERM_ONE_SHOT", "value": "true"}
    ),
}


@pytest.mark.parametrize("mutation", MUTATIONS.values(), ids=MUTATIONS.keys())
def test_mutation_is_caught(mutation: Mutation) -> None:
    values = copy.deepcopy(files.load(NAME))
    mutation(values)

    assert checks.complaints(values)


def test_published_examples_name_what_the_sidecar_reads() -> None:
    airflow_2, airflow_3 = published()

    assert {"webserver"} == airflow_2.keys()
    assert {"apiServer"} == airflow_3.keys()
    for values in (airflow_2, airflow_3):
        assert [] == checks.environment_complaints(values)
        assert [] == checks.kubernetes_complaints(values)


def test_published_examples_are_keys_of_the_chart() -> None:
    if not (checks.CHART / "values.schema.json").is_file():
        pytest.skip(checks.HOW_TO_GET_THE_CHART)
    defaults = yaml.safe_load((checks.CHART / "values.yaml").read_text())
    schema = json.loads((checks.CHART / "values.schema.json").read_text())

    for values in published():
        assert [] == checks.schema_complaints(values, defaults, schema)
        assert [] == checks.unknown_keys(values, defaults)
