"""
Snippets validated against the official chart's schema and values; needs AIRFLOW_CHART.
"""

from __future__ import annotations

import re

import pytest
import yaml

from tests.chart import files
from tests.chart.files import FILES, SNIPPETS
from tests.chart.rendered import printed
from tests.chart.rules import checks
from tests.chart.rules.sidecars import CHART_CCACHE

pytestmark = checks.needs_chart


@pytest.mark.parametrize("name", [*FILES, *printed.ALL])
def test_values_validate_against_the_chart(name: str) -> None:
    for values in files.stacks(name, files.load(name)):
        assert [] == checks.chart_complaints(values)


def test_airflow_values_in_the_readme_match_the_chart_schema() -> None:
    text = (SNIPPETS / "README.md").read_text()
    (values,) = map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", text, re.DOTALL))

    assert [] == checks.schema_complaints(values)
    assert {"config"} == values.keys()


def test_snippets_use_the_ccache_path_of_the_charts_airflow_cfg() -> None:
    """If `[core] security` is kerberos, Airflow overwrites KRB5CCNAME with this path."""
    values = checks.chart_values()["kerberos"]

    assert CHART_CCACHE == f"{values['ccacheMountPath']}/{values['ccacheFileName']}"
