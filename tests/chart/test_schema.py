"""
Snippets against the official chart's own schema and values; needs AIRFLOW_CHART.
"""

from __future__ import annotations

import re

import pytest
import yaml

from tests.chart import checks, files, printed
from tests.chart.files import FILES, SNIPPETS

pytestmark = checks.needs_chart


@pytest.mark.parametrize("name", [*FILES, *printed.ALL])
def test_values_validate_against_the_chart(name: str) -> None:
    for values in files.stacks(name, files.load(name)):
        assert [] == checks.chart_complaints(values)


@pytest.mark.parametrize("name", ["published-example.md", "published-example-kerberos.md"])
def test_published_example_has_keys_that_the_chart_lacks_and_its_correction_has_none(
    name: str,
) -> None:
    text = (SNIPPETS / name).read_text()
    published, corrected, *_ = map(
        yaml.safe_load, re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    )

    assert {"$.worker", "$.extraVolumes", "$.extraVolumeMounts"} == {
        complaint.partition(":")[0] for complaint in checks.unknown_keys(published)
    }
    assert [] == checks.schema_complaints(published)
    assert [] == checks.chart_complaints(corrected)
    assert [] == checks.kubernetes_complaints(corrected)
    assert [] == checks.environment_complaints(corrected)


def test_values_for_airflow_in_the_readme_are_keys_of_the_chart() -> None:
    text = (SNIPPETS / "README.md").read_text()
    (values,) = map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", text, re.DOTALL))

    assert [] == checks.schema_complaints(values)
    assert {"config"} == values.keys()
