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


@pytest.mark.parametrize("name", ["shared-ticket", "git-sync-deployment"])
def test_airflow_reads_where_a_pod_of_its_own_writes(name: str) -> None:
    """
    Each claim has its volume, all volumes are one file system, and the example mounts
    the claim read-only.
    """
    deployment, *others = files.load_objects(f"objects/{name}.yaml")
    pod = deployment["spec"]["template"]["spec"]
    values = files.load(f"examples/{name}.yaml")
    written = environment(pod["containers"][0])
    read = environment(values)
    volumes = {
        one["metadata"]["name"]: one["spec"]["csi"]["volumeHandle"]
        for one in others
        if one["kind"] == "PersistentVolume"
    }
    claims = {
        one["metadata"]["namespace"]: one["spec"]["volumeName"]
        for one in others
        if one["kind"] == "PersistentVolumeClaim"
    }
    written_to = {"claimName": others[-1]["metadata"]["name"]}

    assert {deployment["metadata"]["namespace"], "airflow"} == claims.keys()
    assert sorted(claims.values()) == sorted(volumes)
    assert 1 == len({*volumes.values()})
    for spec, mount in ((pod, written_to), (values, {**written_to, "readOnly": True})):
        assert mount in [one.get("persistentVolumeClaim") for one in spec["volumes"]]
    assert "keytab" not in str(values)
    if name == "shared-ticket":
        assert read["KRB5CCNAME"] == f"FILE:{written['KERBEROS_CCACHE']}"
    else:
        assert {
            "AIRFLOW__CORE__DAGS_FOLDER": f"/opt/airflow/dags/{written['GITSYNC_LINK']}"
        } == read
        assert "/opt/airflow/dags" == values["volumeMounts"][0]["mountPath"]


def test_external_secrets_create_the_keys_that_their_readers_need() -> None:
    specs = [
        one["spec"]
        for one in files.load_objects("secrets/external-secrets.yaml")
        if one["kind"] == "ExternalSecret"
    ]

    assert WANTED_KEYS == {
        spec["target"]["name"]: {
            *(entry["secretKey"] for entry in spec.get("data", [])),
            *spec["target"].get("template", {}).get("data", {}),
        }
        for spec in specs
    }
