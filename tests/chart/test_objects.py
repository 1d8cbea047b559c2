"""
The Kubernetes objects outside the chart, and the names that they share with the values.
"""

import pytest

from tests.chart import files, pods
from tests.chart.files import OBJECTS
from tests.chart.kubernetes import strict_complaints
from tests.chart.sidecars import WANTED_KEYS, environment


@pytest.mark.parametrize("name", OBJECTS)
def test_objects_match_the_kubernetes_schemas(name: str) -> None:
    assert [] == [
        one for thing in files.load_objects(name) for one in strict_complaints(thing)
    ]


@pytest.mark.parametrize("name", [one for one in OBJECTS if one.startswith("objects/")])
def test_pods_of_objects_pass_every_check(name: str) -> None:
    spec = files.load_objects(name)[0]["spec"]
    pod = spec.get("template", {"spec": spec})["spec"]
    has_airflow = "base" in {one["name"] for one in pod["containers"]}

    assert pods.kinds(pod)
    assert [] == [
        *pods.volume_complaints(pod),
        *pods.keytab_complaints(pod),
        *pods.restricted_complaints(pod),
        *pods.sidecar_complaints(pod),
        *(pods.sharing_complaints(pod) if has_airflow else []),
    ]


def test_airflow_reads_the_shared_ticket_where_kerberos_writes_it() -> None:
    deployment, *others = files.load_objects("objects/shared-ticket.yaml")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    claims = {
        one["metadata"]["namespace"]: one
        for one in others
        if "namespace" in one["metadata"]
    }
    volumes = {
        one["metadata"]["name"]: one["spec"] for one in others if one["spec"].get("csi")
    }

    values = files.load("examples/shared-ticket.yaml")

    assert (
        f"FILE:{environment(container)['KERBEROS_CCACHE']}"
        == environment(values)["KRB5CCNAME"]
    )
    (claim,) = (one for one in values["volumes"] if "persistentVolumeClaim" in one)
    assert {"claimName": "krb5-ccache", "readOnly": True} == claim[
        "persistentVolumeClaim"
    ]
    assert "keytab" not in str(values)
    assert claims.keys() == {deployment["metadata"]["namespace"], "airflow"}
    assert {"krb5-ccache"} == {one["metadata"]["name"] for one in claims.values()}
    assert {one["spec"]["volumeName"] for one in claims.values()} == volumes.keys()
    assert 1 == len({one["csi"]["volumeHandle"] for one in volumes.values()})


def test_airflow_mounts_the_claim_that_git_sync_fills() -> None:
    deployment, volume, claim = files.load_objects("objects/git-sync-deployment.yaml")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    values = files.load("examples/git-sync-deployment.yaml")
    (reads,), (mount,) = values["volumes"], values["volumeMounts"]
    name = claim["metadata"]["name"]

    assert {"claimName": name, "readOnly": True} == reads["persistentVolumeClaim"]
    assert {"claimName": name} in [
        one.get("persistentVolumeClaim") for one in pod["volumes"]
    ]
    assert claim["spec"]["volumeName"] == volume["metadata"]["name"]
    link = f"/opt/airflow/dags/{environment(container)['GITSYNC_LINK']}"
    assert {"AIRFLOW__CORE__DAGS_FOLDER": link} == environment(values)
    assert {
        "name": reads["name"],
        "mountPath": "/opt/airflow/dags",
        "readOnly": True,
    } == mount


def test_external_secrets_create_the_keys_that_their_readers_need() -> None:
    specs = [
        one["spec"]
        for one in files.load_objects("secrets/external-secrets.yaml")
        if one["kind"] == "ExternalSecret"
    ]
    made = {
        spec["target"]["name"]: {
            *(entry["secretKey"] for entry in spec.get("data", [])),
            *spec["target"].get("template", {}).get("data", {}),
        }
        for spec in specs
    }

    assert WANTED_KEYS == made
