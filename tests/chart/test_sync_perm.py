"""
sync-perm beside webserver and API server: its snippet's own checks, and the published example.
"""

from __future__ import annotations

import re

import yaml

from tests.chart import checks, files
from tests.chart.files import SNIPPETS
from tests.chart.sidecars import Values

NAME = "sync-perm.extra.yaml"


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


def test_published_examples_name_what_the_sidecar_reads() -> None:
    airflow_2, airflow_3 = published()

    assert {"webserver"} == airflow_2.keys()
    assert {"apiServer"} == airflow_3.keys()
    for values in (airflow_2, airflow_3):
        assert [] == checks.environment_complaints(values)
        assert [] == checks.kubernetes_complaints(values)


@checks.needs_chart
def test_published_examples_are_keys_of_the_chart() -> None:
    for values in published():
        assert [] == checks.chart_complaints(values)
