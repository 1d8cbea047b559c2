"""
What the snippets of kerberos promise beyond those of all: the keytab stays with the sidecar.
"""

from __future__ import annotations

import copy
import os
import re
from pathlib import Path

import pytest
import yaml

from tests.chart import checks, files
from tests.chart.files import SNIPPETS
from tests.chart.mutations import Mutation, named, triggerer, triggerer_container
from tests.chart.sidecars import CHART_CCACHE, Values


def set_variable(holder: Values, name: str, value: str) -> None:
    next(one for one in holder["env"] if one["name"] == name)["value"] = value


MUTATIONS: dict[str, Mutation] = {
    "Airflow sees the keytab": lambda v: triggerer(v)["extraVolumeMounts"].append(
        {"name": "krb5-keytab", "mountPath": "/etc/keytab", "readOnly": True}
    ),
    "the sidecar does not": lambda v: triggerer_container(v)["volumeMounts"].pop(0),
    "a keytab by subPath": lambda v: named(
        triggerer_container(v)["volumeMounts"], "krb5-keytab"
    ).update(mountPath="/etc/keytab/airflow.keytab", subPath="airflow.keytab"),
    "another ccache for Airflow": lambda v: set_variable(triggerer(v), "KRB5CCNAME", "FILE:/tmp/x"),
    "a ccache of a type that nobody shares": lambda v: set_variable(
        triggerer(v), "KRB5CCNAME", "KCM:"
    ),
    "another krb5.conf for Airflow": lambda v: set_variable(
        triggerer(v), "KRB5_CONFIG", "/etc/krb5.conf"
    ),
    "no krb5.conf for Airflow": lambda v: triggerer(v)["extraVolumeMounts"].pop(0),
    "Airflow may write": lambda v: named(triggerer(v)["extraVolumeMounts"], "krb5-ccache").pop(
        "readOnly"
    ),
    "a ccache elsewhere": lambda v: set_variable(
        triggerer_container(v), "KERBEROS_CCACHE", "/tmp/krb5cc"
    ),
    "a ccache that airflow.cfg does not name": lambda v: (
        set_variable(triggerer_container(v), "KERBEROS_CCACHE", "/var/kerberos-ccache/other")
        or set_variable(triggerer(v), "KRB5CCNAME", "FILE:/var/kerberos-ccache/other")
    ),
    "tickets on a disk": lambda v: named(triggerer(v)["extraVolumes"], "krb5-ccache")[
        "emptyDir"
    ].pop("medium"),
    "no size limit": lambda v: named(triggerer(v)["extraVolumes"], "krb5-ccache")["emptyDir"].pop(
        "sizeLimit"
    ),
    "a name of the chart's": lambda v: named(triggerer(v)["extraVolumes"], "krb5-keytab").update(
        name="kerberos-keytab"
    ),
    "a variable misspelled": lambda v: (
        set_variable(triggerer_container(v), "KERBEROS_CCACHE", "")
        or triggerer_container(v)["env"].append({"name": "KERBEROS_CACHE", "value": "x"})
    ),
    "another port": lambda v: triggerer_container(v)["ports"][0].update(containerPort=9811),
}


@pytest.mark.parametrize("mutation", MUTATIONS.values(), ids=MUTATIONS.keys())
@pytest.mark.parametrize("name", ["kerberos.extra.yaml", "kerberos.native.yaml"])
def test_mutation_is_caught(name: str, mutation: Mutation) -> None:
    values = copy.deepcopy(files.load(name))
    mutation(values)

    assert checks.complaints(values)


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
