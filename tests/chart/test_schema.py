"""
Snippets against the official chart's own schema and values; needs AIRFLOW_CHART.
"""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import yaml

from tests.chart import checks, files
from tests.chart.files import FILES, SNIPPETS
from tests.chart.mutations import Mutation, container, dag_processor, rename
from tests.chart.sidecars import Values

if not (checks.CHART / "values.schema.json").is_file():
    pytest.skip(checks.HOW_TO_GET_THE_CHART, allow_module_level=True)

Chart = tuple[Values, dict[str, Any]]


@pytest.fixture(scope="module")
def chart() -> Chart:
    """
    The chart's default values and its schema.
    """
    return checks.chart_values(), checks.chart_schema()


@pytest.mark.parametrize("name", FILES)
def test_values_validate_against_the_chart(name: str, chart: Chart) -> None:
    defaults, schema = chart

    for values in files.stacks(name, files.load(name)):
        assert [] == checks.schema_complaints(values, defaults, schema)
        assert [] == checks.unknown_keys(values, defaults)


@pytest.mark.parametrize("name", ["published-example.md", "published-example-kerberos.md"])
def test_published_example_has_keys_that_the_chart_lacks_and_its_correction_has_none(
    name: str, chart: Chart
) -> None:
    defaults, schema = chart
    text = (SNIPPETS / name).read_text()
    published, corrected, *_ = map(
        yaml.safe_load, re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    )

    assert {"$.worker", "$.extraVolumes", "$.extraVolumeMounts"} == {
        complaint.partition(":")[0] for complaint in checks.unknown_keys(published, defaults)
    }
    assert [] == checks.schema_complaints(published, defaults, schema)
    assert [] == checks.unknown_keys(corrected, defaults)
    assert [] == checks.schema_complaints(corrected, defaults, schema)
    assert [] == checks.kubernetes_complaints(corrected)
    assert [] == checks.environment_complaints(corrected)


def test_values_for_airflow_in_the_readme_are_keys_of_the_chart(chart: Chart) -> None:
    defaults, schema = chart
    text = (SNIPPETS / "README.md").read_text()
    (values,) = map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", text, re.DOTALL))

    assert [] == checks.schema_complaints(values, defaults, schema)
    assert {"config"} == values.keys()


MUTATIONS: dict[str, Mutation] = {
    "worker for workers": lambda v: rename(v, "workers", "worker"),
    "volumes at the top": lambda v: v.update(extraVolumes=[]),
    "a component's key misspelled": lambda v: rename(
        dag_processor(v), "extraVolumeMounts", "extraVolumesMounts"
    ),
    "service account's key misspelled": lambda v: rename(
        dag_processor(v)["serviceAccount"], "annotations", "annotation"
    ),
    "a list for an annotation": lambda v: dag_processor(v)["serviceAccount"].update(
        annotations={"eks.amazonaws.com/role-arn": ["arn"]}
    ),
    "a container's key misspelled": lambda v: rename(
        container(v), "livenessProbe", "livelinessProbe"
    ),
}


@pytest.mark.parametrize("mutation", MUTATIONS.values(), ids=MUTATIONS.keys())
def test_mutation_is_caught_by_the_chart(mutation: Mutation, chart: Chart) -> None:
    defaults, schema = chart
    values = copy.deepcopy(files.load("s3-sync.extra.yaml"))
    mutation(values)

    assert checks.schema_complaints(values, defaults, schema) + checks.unknown_keys(
        values, defaults
    )
