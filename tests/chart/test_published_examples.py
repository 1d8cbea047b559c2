"""
The published examples have known mistakes, and their corrections are valid.
"""

from __future__ import annotations

import re

import pytest
import yaml

from tests.chart.files import SNIPPETS
from tests.chart.rules import checks
from tests.chart.rules.sidecars import Values

S3_SYNC, KERBEROS = "published-example-s3-sync.md", "published-example-kerberos.md"
SYNC_PERM = "published-example-sync-perm.md"


def blocks(name: str) -> list[Values]:
    """
    Return the first two blocks of a page: published and corrected, or for Airflow 2 and 3.
    """
    text = (SNIPPETS / name).read_text()
    return [yaml.safe_load(one) for one in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)[:2]]


RIGHT = [
    pytest.param(values, id=f"{name} {number}")
    for name, first in ((S3_SYNC, 1), (KERBEROS, 1), (SYNC_PERM, 0))
    for number, values in enumerate(blocks(name)[first:])
]


@pytest.mark.parametrize("values", RIGHT)
def test_corrected_examples_are_valid_for_kubernetes_and_the_sidecars(values: Values) -> None:
    assert [] == checks.kubernetes_complaints(values)
    assert [] == checks.environment_complaints(values)


@checks.needs_chart
@pytest.mark.parametrize("values", RIGHT)
def test_corrected_examples_use_only_keys_of_the_chart(values: Values) -> None:
    assert [] == checks.chart_complaints(values)


@checks.needs_chart
@pytest.mark.parametrize("name", [S3_SYNC, KERBEROS])
def test_published_examples_have_unknown_keys_that_the_schema_accepts(name: str) -> None:
    published, _ = blocks(name)

    assert {"$.worker", "$.extraVolumes", "$.extraVolumeMounts"} == {
        complaint.partition(":")[0] for complaint in checks.unknown_keys(published)
    }
    assert [] == checks.schema_complaints(published)


def test_corrected_kerberos_example_no_longer_mounts_the_keytab_in_airflow() -> None:
    published, corrected = blocks(KERBEROS)
    celery = corrected["workers"]["celery"]

    assert {"name": "keytab", "mountPath": "/etc/keytab"} in published["extraVolumeMounts"]
    assert ["krb5-ccache"] == [one["name"] for one in celery["extraVolumeMounts"]]


def test_sync_perm_examples_are_for_the_webserver_and_the_api_server() -> None:
    assert [{"webserver"}, {"apiServer"}] == [values.keys() for values in blocks(SYNC_PERM)]
