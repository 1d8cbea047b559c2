"""
A snippet with one mistake causes a complaint, for each kind of mistake.

`test_keys.py` covers misspelled keys.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

from tests.chart import files
from tests.chart.files import named
from tests.chart.rules import checks
from tests.chart.rules.sidecars import Values

Mutation = Callable[[Values, Values], object]
"""Plants a mistake in a component or in its sidecar container."""

# The component to change, if it is not the triggerer.
PLACES = {
    "git-sync-wrapper.versions.yaml": "dagProcessor",
    "s3-sync.versions.yaml": "dagProcessor",
    "sync-perm.extra.yaml": "webserver",
}


def set_variable(holder: Values, name: str, value: str) -> None:
    named(holder["env"], name)["value"] = value


def add_variable(holder: Values, name: str, value: str) -> None:
    holder["env"].append({"name": name, "value": value})


def change_bundle(pod: Values, **arguments: str) -> None:
    (bundle,) = pod["dagBundleConfigList"]
    bundle["kwargs"].update(arguments)


ANY: dict[str, Mutation] = {
    "a port number as text": lambda _, one: one["ports"][0].update(containerPort="9811"),
    "a probe with an undefined port name": lambda _, one: one["livenessProbe"]["httpGet"].update(
        port="http"
    ),
    "a liveness probe of readiness": lambda _, one: one["livenessProbe"]["httpGet"].update(
        path="/readyz"
    ),
    "a readiness probe": lambda _, one: one.update(readinessProbe=one["livenessProbe"]),
    "no startup probe": lambda _, one: one.pop("startupProbe"),
    "an unknown variable": lambda _, one: add_variable(one, "KERBEROS_LAYUOT", "x"),
    "a number as the value of a variable": lambda _, one: one["env"][-1].update(value=10),
    "no seccomp profile": lambda _, one: one["securityContext"].pop("seccompProfile"),
    "a writable root file system": lambda _, one: one["securityContext"].update(
        readOnlyRootFilesystem=False
    ),
    "no memory limit": lambda _, one: one["resources"]["limits"].pop("memory"),
    "no image tag": lambda _, one: one.update(image="registry.example.com:5000/sidecar"),
    "mounts without volumes": lambda pod, _: pod.pop("extraVolumes"),
}
S3_SYNC: dict[str, Mutation] = {
    "no bucket": lambda _, one: one["env"].pop(0),
    "a one-shot daemon": lambda _, one: add_variable(one, "S3_SYNC_ONE_SHOT", "true"),
    "no size limit": lambda pod, _: pod["extraVolumes"][0]["emptyDir"].pop("sizeLimit"),
    "a volume named dags": lambda pod, _: pod["extraVolumes"][0].update(name="dags"),
    "a writable mount in Airflow": lambda pod, _: pod["extraVolumeMounts"][0].pop("readOnly"),
    "a mount outside of the DAG folder": lambda _, one: one["volumeMounts"][0].update(
        mountPath="/dags"
    ),
}
GIT_SYNC_WRAPPER: dict[str, Mutation] = {
    "a volume with the name of a chart volume": lambda pod, _: named(
        pod["extraVolumes"], "git-dags"
    ).update(name="dags"),
    "a root that is not mounted": lambda _, one: set_variable(one, "GITSYNC_ROOT", "/dags"),
    "a subPath in the mount of Airflow": lambda pod, _: pod["extraVolumeMounts"][0].update(
        subPath="repo"
    ),
    "the password mounted in Airflow": lambda pod, _: pod["extraVolumeMounts"].append(
        {"name": "git-credentials", "mountPath": "/etc/git-credentials", "readOnly": True}
    ),
    "a password file that is not mounted": lambda _, one: set_variable(
        one, "GITSYNC_PASSWORD_FILE", "/etc/other/GITSYNC_PASSWORD"
    ),
    "no writable /tmp": lambda _, one: one["volumeMounts"].pop(1),
    "a misspelled variable of git-sync": lambda _, one: add_variable(one, "GITSYNC_BRANCH", "main"),
}
KERBEROS: dict[str, Mutation] = {
    "the keytab mounted in Airflow": lambda pod, _: pod["extraVolumeMounts"].append(
        {"name": "krb5-keytab", "mountPath": "/etc/keytab", "readOnly": True}
    ),
    "no keytab in the sidecar": lambda _, one: one["volumeMounts"].pop(0),
    "a keytab mounted with a subPath": lambda _, one: named(
        one["volumeMounts"], "krb5-keytab"
    ).update(mountPath="/etc/keytab/airflow.keytab", subPath="airflow.keytab"),
    "a different ccache for Airflow": lambda pod, _: set_variable(pod, "KRB5CCNAME", "FILE:/tmp/x"),
    "a different krb5.conf for Airflow": lambda pod, _: set_variable(
        pod, "KRB5_CONFIG", "/etc/krb5.conf"
    ),
    "no krb5.conf for Airflow": lambda pod, _: pod["extraVolumeMounts"].pop(0),
    "a writable ccache in Airflow": lambda pod, _: named(
        pod["extraVolumeMounts"], "krb5-ccache"
    ).pop("readOnly"),
    "a ccache outside of the volume": lambda _, one: set_variable(
        one, "KERBEROS_CCACHE", "/tmp/krb5cc"
    ),
    "a ccache that airflow.cfg does not name": lambda pod, one: (
        set_variable(one, "KERBEROS_CCACHE", "/var/kerberos-ccache/other")
        or set_variable(pod, "KRB5CCNAME", "FILE:/var/kerberos-ccache/other")
    ),
    "tickets on a disk": lambda pod, _: named(pod["extraVolumes"], "krb5-ccache")["emptyDir"].pop(
        "medium"
    ),
    "a keytab volume with the name of a chart volume": lambda pod, _: named(
        pod["extraVolumes"], "krb5-keytab"
    ).update(name="kerberos-keytab"),
}
SYNC_PERM: dict[str, Mutation] = {
    "a connection in plain text": lambda _, one: one["env"].__setitem__(
        0, {"name": "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "value": "postgresql://"}
    ),
    "the connection of a different Secret": lambda _, one: one["env"][0]["valueFrom"][
        "secretKeyRef"
    ].update(name="metadata"),
    "no connection": lambda _, one: one["env"].pop(0),
    "no airflow.cfg": lambda _, one: one["volumeMounts"].pop(0),
    "a writable airflow.cfg": lambda _, one: one["volumeMounts"][0].pop("readOnly"),
    "no /tmp": lambda _, one: one["volumeMounts"].pop(1),
    "one-shot beside the webserver": lambda _, one: add_variable(one, "SYNC_PERM_ONE_SHOT", "true"),
}
NATIVE: dict[str, Mutation] = {
    "no restart policy": lambda _, one: one.pop("restartPolicy"),
}
VERSIONS: dict[str, Mutation] = {
    "a bundle with a different path": lambda pod, _: change_bundle(pod, path="/opt/airflow/dags"),
    "an absolute folder in a version": lambda pod, _: change_bundle(pod, subdir="/dags"),
    "a URL template without the version": lambda pod, _: change_bundle(
        pod, view_url_template="https://git.example.com/dags"
    ),
    "a URL template with an unknown field": lambda pod, _: change_bundle(
        pod, view_url_template="https://git.example.com/{version}/{revision}"
    ),
    "a URL template without a scheme": lambda pod, _: change_bundle(
        pod, view_url_template="git.example.com/{version}"
    ),
}
# All pods but task pods share one container through a YAML alias, so a change affects them all.
S3_VERSIONS: dict[str, Mutation] = {
    "requests are disabled": lambda _, one: add_variable(one, "S3_SYNC_KEEP_REQUESTED", "0"),
    "a different prefix than task pods": lambda _, one: set_variable(one, "KEY_PATH", "other"),
    "a listing instead of releases": lambda _, one: set_variable(one, "S3_SYNC_SOURCE", "listing"),
}
GIT_VERSIONS: dict[str, Mutation] = {
    "a different branch than task pods": lambda _, one: set_variable(one, "GITSYNC_REF", "other"),
    "a different repository than task pods": lambda _, one: set_variable(
        one, "GITSYNC_REPO", "https://git.example.com/other.git"
    ),
    "a different link": lambda _, one: set_variable(one, "GITSYNC_LINK", "other"),
    "no subdir": lambda pod, _: change_bundle(pod, subdir=""),
}
CASES = {
    "s3-sync.extra.yaml": ANY | S3_SYNC,
    "s3-sync.native.yaml": ANY | S3_SYNC | NATIVE,
    "s3-sync.versions.yaml": VERSIONS | S3_VERSIONS,
    "git-sync-wrapper.extra.yaml": ANY | GIT_SYNC_WRAPPER,
    "git-sync-wrapper.native.yaml": ANY | GIT_SYNC_WRAPPER | NATIVE,
    "git-sync-wrapper.versions.yaml": VERSIONS | GIT_VERSIONS,
    "kerberos.extra.yaml": ANY | KERBEROS,
    "kerberos.native.yaml": ANY | KERBEROS | NATIVE,
    "sync-perm.extra.yaml": ANY | SYNC_PERM,
}


@pytest.mark.parametrize(
    ("name", "what"), [(name, what) for name, table in CASES.items() for what in table]
)
def test_detects_each_mutation(name: str, what: str) -> None:
    values = copy.deepcopy(files.load(name))
    component = values[PLACES.get(name, "triggerer")]
    CASES[name][what](component, checks.containers(component)[0])

    assert checks.complaints(values)


@checks.needs_chart
def test_chart_schema_detects_a_value_of_the_wrong_type() -> None:
    values = copy.deepcopy(files.load("s3-sync.extra.yaml"))
    values["dagProcessor"]["serviceAccount"]["annotations"] = {
        "eks.amazonaws.com/role-arn": ["arn"]
    }

    assert checks.chart_complaints(values)
