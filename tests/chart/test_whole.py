"""
The files agree with each other: a name that one file uses is defined in another.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from tests.chart import files
from tests.chart.files import OBJECTS, WHOLE
from tests.chart.rendered import start
from tests.chart.rules import checks, objects, pods
from tests.chart.rules.sidecars import SIDECARS, Values, environment

PORTS = {one.port for one in SIDECARS.values()}


@pytest.mark.parametrize("name", [one for one in OBJECTS if one.startswith("objects/")])
def test_sidecar_of_an_object_starts_and_fails_only_for_lack_of_a_network(
    name: str, tmp_path: Path
) -> None:
    pod = files.load_objects(name)[0]["spec"]
    pod = pod.get("template", {"spec": pod})["spec"]
    (container,) = filter(start.sidecar_of, pods.containers(pod))
    if reason := start.skip_reason(container, tmp_path):
        pytest.skip(reason)

    assert [] == start.Started(pod, container, {}, tmp_path).complaints()


def leaves(values: Values, path: str = "") -> set[str]:
    found = set()
    for key, value in values.items():
        found |= leaves(value, f"{path}{key}.") if isinstance(value, dict) else {f"{path}{key}"}
    return found


def test_dev_and_prd_set_the_same_expected_keys() -> None:
    dev, prd = leaves(files.load("values-dev.yaml")), leaves(files.load("values-prd.yaml"))

    assert dev == prd
    assert {path for path in dev if not path.startswith("sidecars.")} == {
        "apiServer.replicas",
        "config.api.base_url",
        "ingress.apiServer.hosts",
        "ingress.web.hosts",
        "webserver.replicas",
    }
    assert {path.removeprefix("sidecars.") for path in dev if path.startswith("sidecars.")} == {
        "bucket",
        "kerberos.tag",
        "roleArn",
        "s3Sync.gate",
        "s3Sync.interval",
        "s3Sync.keyPath",
        "s3Sync.memoryLimit",
        "s3Sync.source",
        "s3Sync.tag",
        "syncPerm.tag",
    }


def secrets_named(node: Any) -> Iterator[str]:
    """
    Yield the names of the Secrets that values reference.
    """
    if isinstance(node, list):
        for one in node:
            yield from secrets_named(one)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key.lower().endswith("secretname"):
                yield value
            elif key == "imagePullSecrets":
                yield from (one["name"] for one in value)
            else:
                yield from secrets_named(value)


def test_external_secrets_create_every_secret_that_the_values_reference() -> None:
    made = {
        one["spec"]["target"]["name"]
        for one in files.load_objects("secrets/external-secrets.yaml")
        if one["kind"] == "ExternalSecret"
    }

    (values,) = files.stacks("values-airflow-2.yaml", files.load("values-airflow-2.yaml"))

    assert made == {*secrets_named(values), "git-credentials"} == objects.WANTED_KEYS.keys()


def test_values_disable_the_chart_parts_that_have_default_passwords() -> None:
    values = files.load(WHOLE)

    assert {"enabled": False} == values["createUserJob"]
    assert {"enabled": False} == values["postgresql"]


def test_only_prometheus_may_connect_to_the_sidecar_ports() -> None:
    ingress, _ = files.load_objects("network/network-policy.yaml")
    (rule,) = ingress["spec"]["ingress"]

    assert {("TCP", port) for port in PORTS} == {
        (one["protocol"], one["port"]) for one in rule["ports"]
    }
    assert [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    ] == (rule["from"])


def test_egress_allows_exactly_the_ports_that_pods_need() -> None:
    _, egress = files.load_objects("network/network-policy.yaml")
    allowed = {
        (port["protocol"], port["port"])
        for rule in egress["spec"]["egress"]
        for port in rule["ports"]
    }

    assert allowed == {
        *(("UDP", 53), ("TCP", 53)),  # DNS
        ("TCP", 443),  # S3, STS, git, the API server of Kubernetes
        ("TCP", 80),  # EKS Pod Identity's agent
        *(("UDP", 88), ("TCP", 88)),  # KDC
        ("TCP", 5432),  # database
        ("TCP", 22),  # git over SSH
        *(("TCP", 8080), ("TCP", 6543), ("TCP", 6379), ("TCP", 8793), ("TCP", 8794), ("UDP", 9125)),
    }
    assert all(rule["to"] for rule in egress["spec"]["egress"])


def test_egress_blocks_the_instance_metadata_service() -> None:
    _, egress = files.load_objects("network/network-policy.yaml")
    blocks = [
        to["ipBlock"] for rule in egress["spec"]["egress"] for to in rule["to"] if "ipBlock" in to
    ]

    assert [["169.254.0.0/16"]] == [one["except"] for one in blocks if one["cidr"] == "0.0.0.0/0"]
    assert ["169.254.20.10/32", "169.254.170.23/32"] == [
        one["cidr"] for one in blocks if one["cidr"].startswith("169.")
    ]


def test_airflow_reads_the_shared_ticket_where_kerberos_writes_it() -> None:
    deployment, *others = files.load_objects("objects/shared-ticket.yaml")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    claims = {one["metadata"]["namespace"]: one for one in others if "namespace" in one["metadata"]}
    volumes = {one["metadata"]["name"]: one["spec"] for one in others if one["spec"].get("csi")}

    values = files.load("examples/shared-ticket.yaml")

    ccache = environment(container)["KERBEROS_CCACHE"]
    assert f"FILE:{ccache}" == environment(values)["KRB5CCNAME"]
    (claim,) = (one for one in values["volumes"] if "persistentVolumeClaim" in one)
    assert {"claimName": "krb5-ccache", "readOnly": True} == claim["persistentVolumeClaim"]
    assert {"name": claim["name"], "mountPath": "/var/kerberos-ccache", "readOnly": True} in (
        values["volumeMounts"]
    )
    assert claims.keys() == {deployment["metadata"]["namespace"], "airflow"}
    assert {"krb5-ccache"} == {one["metadata"]["name"] for one in claims.values()}
    assert {one["spec"]["volumeName"] for one in claims.values()} == volumes.keys()
    assert 1 == len({one["csi"]["volumeHandle"] for one in volumes.values()})
    assert (
        deployment["spec"]["selector"]["matchLabels"]
        == (deployment["spec"]["template"]["metadata"]["labels"])
    )


def test_airflow_mounts_the_claim_that_git_sync_fills() -> None:
    deployment, volume, claim = files.load_objects("objects/git-sync-deployment.yaml")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    names = {
        one["persistentVolumeClaim"]["claimName"]
        for one in pod["volumes"]
        if "persistentVolumeClaim" in one
    }

    values = files.load("examples/git-sync-deployment.yaml")

    (reads,) = values["volumes"]
    (mount,) = values["volumeMounts"]
    assert {"claimName": claim["metadata"]["name"], "readOnly": True} == (
        reads["persistentVolumeClaim"]
    )
    assert names == {claim["metadata"]["name"]}
    assert claim["spec"]["volumeName"] == volume["metadata"]["name"]
    assert values["config"]["core"]["dags_folder"] == (
        f"/opt/airflow/dags/{environment(container)['GITSYNC_LINK']}"
    )
    assert [{"secretRef": {"name": "git-credentials"}}] == container["envFrom"]
    assert 9814 in PORTS & {one["containerPort"] for one in container["ports"]}
    assert {"name": reads["name"], "mountPath": "/opt/airflow/dags", "readOnly": True} == mount


def test_values_for_a_shared_ticket_contain_no_keytab() -> None:
    values = files.load("examples/shared-ticket.yaml")

    assert "keytab" not in str(values)
    assert [] == list(files.ours(values))


def clashes(values: Values, added: Values) -> Iterator[str]:
    """
    Yield what breaks if Helm receives `added` later: items that its lists for all components
    replace, and items that a component repeats.
    """
    for kind, key in {"volumes": "name", "volumeMounts": "mountPath", "env": "name"}.items():
        if kind not in added:
            continue
        new = {one[key] for one in added[kind]}
        yield from {one[key] for one in values.get(kind, [])} - new
        own = kind if kind == "env" else f"extra{kind[0].upper()}{kind[1:]}"
        for _, component in checks.components(values):
            yield from {one[key] for one in component.get(own, [])} & new


@pytest.mark.parametrize(
    "name", ["examples/git-sync-deployment.yaml", "examples/shared-ticket.yaml"]
)
def test_comment_names_every_file_that_the_lists_for_all_components_break(name: str) -> None:
    comment = " ".join(re.findall("^# (.*)", files.text(name), re.MULTILINE)[3:])
    named = re.findall(r"[\w.*-]+\.yaml", comment)
    others = {one for one in files.FILES if one not in (name, "quickstart/values.yaml")}

    breaks = {one for one in others if [*clashes(files.load(one), files.load(name))]}
    assert breaks == {
        one
        for one in others
        if any(fnmatchcase(one.removeprefix("examples/"), pattern) for pattern in named)
    }


def test_operator_pod_has_one_container_and_only_native_sidecars() -> None:
    (pod,) = files.load_objects("objects/pod-template.yaml")

    assert "Never" == pod["spec"]["restartPolicy"]
    assert ["base"] == [one["name"] for one in pod["spec"]["containers"]]
    assert ["Always"] == [one["restartPolicy"] for one in pod["spec"]["initContainers"]]


def test_task_pods_have_no_gate_because_one_bad_dag_would_block_all_tasks() -> None:
    variables = {
        name
        for pod in files.task_pods()
        for one in checks.containers(pod)
        for name in environment(one)
    }

    assert "S3_SYNC_SOURCE" in variables
    assert set() == {name for name in variables if name.endswith("_GATE")}
