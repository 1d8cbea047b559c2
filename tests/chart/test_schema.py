"""
Snippets against the official chart's own schema and values; needs AIRFLOW_CHART.
"""

from __future__ import annotations

import re

import pytest
import yaml

from tests.chart import checks, files, printed
from tests.chart.files import FILES, SNIPPETS
from tests.chart.sidecars import CHART_CCACHE

pytestmark = checks.needs_chart


@pytest.mark.parametrize("name", [*FILES, *printed.ALL])
def test_values_validate_against_the_chart(name: str) -> None:
    for values in files.stacks(name, files.load(name)):
        assert [] == checks.chart_complaints(values)


def test_values_for_airflow_in_the_readme_are_keys_of_the_chart() -> None:
    text = (SNIPPETS / "README.md").read_text()
    (values,) = map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", text, re.DOTALL))

    assert [] == checks.schema_complaints(values)
    assert {"config"} == values.keys()


def test_airflow_cfg_of_the_chart_names_the_ccache_of_the_snippets() -> None:
    """Airflow sets KRB5CCNAME to it where `[core] security` is kerberos, over the variable."""
    values = checks.chart_values()["kerberos"]

    assert CHART_CCACHE == f"{values['ccacheMountPath']}/{values['ccacheFileName']}"
