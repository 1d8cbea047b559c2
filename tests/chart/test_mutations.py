"""
Each check catches what it is for: a snippet with one thing changed is complained of.

A misspelled key of any file: `test_keys.py`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

from tests.chart import checks, files
from tests.chart.files import named
from tests.chart.sidecars import Values

Mutation = Callable[[Values, Values], object]
"""Changes a component, and our container in it."""

# The component that is changed, where it is not the triggerer.
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
    "a port that is text": lambda _, one: one["ports"][0].update(containerPort="9811"),
    "a port by a name that nobody gave": lambda _, one: one["livenessProbe"]["httpGet"].update(
        port="http"
    ),
    "liveness asks for readiness": lambda _, one: one["livenessProbe"]["httpGet"].update(
        path="/readyz"
    ),
    "readiness is asked": lambda _, one: one.update(readinessProbe=one["livenessProbe"]),
    "no startup probe": lambda _, one: one.pop("startupProbe"),
    "a variable that nobody reads": lambda _, one: add_variable(one, "KERBEROS_LAYUOT", "x"),
    "a number for a variable": lambda _, one: one["env"][-1].update(value=10),
    "no seccomp profile": lambda _, one: one["securityContext"].pop("seccompProfile"),
    "a root that can be written": lambda _, one: one["securityContext"].update(
        readOnlyRootFilesystem=False
    ),
    "no memory limit": lambda _, one: one["resources"]["limits"].pop("memory"),
    "no image tag": lambda _, one: one.update(image="registry.example.com:5000/sidecar"),
    "a volume that nobody brings": lambda pod, _: pod.pop("extraVolumes"),
}
S3_SYNC: dict[str, Mutation] = {
    "no bucket": lambda _, one: one["env"].pop(0),
    "a daemon that ends": lambda _, one: add_variable(one, "S3_SYNC_ONE_SHOT", "true"),
    "no size limit": lambda pod, _: pod["extraVolumes"][0]["emptyDir"].pop("sizeLimit"),
    "a volume called dags": lambda pod, _: pod["extraVolumes"][0].update(name="dags"),
    "Airflow may write": lambda pod, _: pod["extraVolumeMounts"][0].pop("readOnly"),
    "another folder": lambda _, one: one["volumeMounts"][0].update(mountPath="/dags"),
}
GIT_SYNC_WRAPPER: dict[str, Mutation] = {
    "a volume of the chart's name": lambda pod, _: named(pod["extraVolumes"], "git-dags").update(
        name="dags"
    ),
    "another root": lambda _, one: set_variable(one, "GITSYNC_ROOT", "/dags"),
    "Airflow reads through a subPath": lambda pod, _: pod["extraVolumeMounts"][0].update(
        subPath="repo"
    ),
    "Airflow sees the password": lambda pod, _: pod["extraVolumeMounts"].append(
        {"name": "git-credentials", "mountPath": "/etc/git-credentials", "readOnly": True}
    ),
    "the password is elsewhere": lambda _, one: set_variable(
        one, "GITSYNC_PASSWORD_FILE", "/etc/other/GITSYNC_PASSWORD"
    ),
    "no place for the socket": lambda _, one: one["volumeMounts"].pop(1),
    "a variable of git-sync misspelled": lambda _, one: add_variable(one, "GITSYNC_BRANCH", "main"),
}
KERBEROS: dict[str, Mutation] = {
    "Airflow sees the keytab": lambda pod, _: pod["extraVolumeMounts"].append(
        {"name": "krb5-keytab", "mountPath": "/etc/keytab", "readOnly": True}
    ),
    "the sidecar does not": lambda _, one: one["volumeMounts"].pop(0),
    "a keytab by subPath": lambda _, one: named(one["volumeMounts"], "krb5-keytab").update(
        mountPath="/etc/keytab/airflow.keytab", subPath="airflow.keytab"
    ),
    "another ccache for Airflow": lambda pod, _: set_variable(pod, "KRB5CCNAME", "FILE:/tmp/x"),
    "another krb5.conf for Airflow": lambda pod, _: set_variable(
        pod, "KRB5_CONFIG", "/etc/krb5.conf"
    ),
    "no krb5.conf for Airflow": lambda pod, _: pod["extraVolumeMounts"].pop(0),
    "Airflow may write": lambda pod, _: named(pod["extraVolumeMounts"], "krb5-ccache").pop(
        "readOnly"
    ),
    "a ccache elsewhere": lambda _, one: set_variable(one, "KERBEROS_CCACHE", "/tmp/krb5cc"),
    "a ccache that airflow.cfg does not name": lambda pod, one: (
        set_variable(one, "KERBEROS_CCACHE", "/var/kerberos-ccache/other")
        or set_variable(pod, "KRB5CCNAME", "FILE:/var/kerberos-ccache/other")
    ),
    "tickets on a disk": lambda pod, _: named(pod["extraVolumes"], "krb5-ccache")["emptyDir"].pop(
        "medium"
    ),
    "a name of the chart's": lambda pod, _: named(pod["extraVolumes"], "krb5-keytab").update(
        name="kerberos-keytab"
    ),
}
SYNC_PERM: dict[str, Mutation] = {
    "a connection in the open": lambda _, one: one["env"].__setitem__(
        0, {"name": "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "value": "postgresql://"}
    ),
    "another Secret": lambda _, one: one["env"][0]["valueFrom"]["secretKeyRef"].update(
        name="metadata"
    ),
    "no connection": lambda _, one: one["env"].pop(0),
    "no airflow.cfg": lambda _, one: one["volumeMounts"].pop(0),
    "airflow.cfg to write": lambda _, one: one["volumeMounts"][0].pop("readOnly"),
    "no /tmp": lambda _, one: one["volumeMounts"].pop(1),
    "one-shot beside the webserver": lambda _, one: add_variable(one, "SYNC_PERM_ONE_SHOT", "true"),
}
NATIVE: dict[str, Mutation] = {
    "no restart policy": lambda _, one: one.pop("restartPolicy"),
}
VERSIONS: dict[str, Mutation] = {
    "a bundle that looks elsewhere": lambda pod, _: change_bundle(pod, path="/opt/airflow/dags"),
    "an absolute folder in a version": lambda pod, _: change_bundle(pod, subdir="/dags"),
    "an address of no version": lambda pod, _: change_bundle(
        pod, view_url_template="https://git.example.com/dags"
    ),
    "an address with a slip": lambda pod, _: change_bundle(
        pod, view_url_template="https://git.example.com/{version}/{revision}"
    ),
    "an address that Airflow refuses": lambda pod, _: change_bundle(
        pod, view_url_template="git.example.com/{version}"
    ),
}
# The containers of the other pods than task pods are one and the same.
S3_VERSIONS: dict[str, Mutation] = {
    "nobody may ask": lambda _, one: add_variable(one, "S3_SYNC_KEEP_ASKED", "0"),
    "another prefix than task pods": lambda _, one: set_variable(one, "KEY_PATH", "other"),
    "no release": lambda _, one: set_variable(one, "S3_SYNC_SOURCE", "listing"),
}
GIT_VERSIONS: dict[str, Mutation] = {
    "nobody may ask": lambda _, one: add_variable(one, "GIT_SYNC_WRAPPER_KEEP_ASKED", "0"),
    "another branch than task pods": lambda _, one: set_variable(one, "GITSYNC_REF", "other"),
    "another repository than task pods": lambda _, one: set_variable(
        one, "GITSYNC_REPO", "https://git.example.com/other.git"
    ),
    "another link": lambda _, one: set_variable(one, "GITSYNC_LINK", "other"),
    "the whole version": lambda pod, _: change_bundle(pod, subdir=""),
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
def test_mutation_is_caught(name: str, what: str) -> None:
    values = copy.deepcopy(files.load(name))
    component = values[PLACES.get(name, "triggerer")]
    CASES[name][what](component, checks.containers(component)[0])

    assert checks.complaints(values)


@checks.needs_chart
def test_a_value_of_another_type_is_caught_by_the_chart() -> None:
    values = copy.deepcopy(files.load("s3-sync.extra.yaml"))
    values["dagProcessor"]["serviceAccount"]["annotations"] = {
        "eks.amazonaws.com/role-arn": ["arn"]
    }

    assert checks.chart_complaints(values)
