"""
What the snippets of kerberos promise beyond those of all: the keytab stays with the sidecar.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import yaml

from tests.chart import checks
from tests.chart.files import SNIPPETS
from tests.chart.sidecars import CHART_CCACHE


def test_airflow_cfg_of_the_chart_names_the_ccache_of_the_snippets() -> None:
    """Airflow sets KRB5CCNAME to it where `[core] security` is kerberos, over the variable."""
    chart = os.environ.get("AIRFLOW_CHART")
    if not chart:
        pytest.skip("needs AIRFLOW_CHART")
    values = yaml.safe_load((Path(chart) / "values.yaml").read_text())["kerberos"]

    assert CHART_CCACHE == f"{values['ccacheMountPath']}/{values['ccacheFileName']}"


def test_the_published_example_shows_the_keytab_to_airflow_and_its_correction_does_not() -> None:
    text = (SNIPPETS / "published-example-kerberos.md").read_text()
    published, corrected = map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", text, re.DOTALL))
    celery = corrected["workers"]["celery"]

    assert {"name": "keytab", "mountPath": "/etc/keytab"} in published["extraVolumeMounts"]
    assert ["krb5-ccache"] == [one["name"] for one in celery["extraVolumeMounts"]]
    assert [] == checks.kubernetes_complaints(corrected)
    assert [] == checks.environment_complaints(corrected)
