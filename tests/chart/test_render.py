"""
What the official chart makes of the snippets; needs `helm` and the whole chart.
"""

from __future__ import annotations

import configparser
import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.chart import checks, files, pods
from tests.chart.kubernetes import strict_complaints
from tests.chart.rendering import CAN_RENDER, HOW_TO_RENDER, component, render
from tests.chart.rendering import pods as pods_of
from tests.chart.sidecars import SIDECARS, Values

if not CAN_RENDER:
    pytest.skip(HOW_TO_RENDER, allow_module_level=True)

Kinds = dict[str, dict[str, str]]

CELERY, KUBERNETES, LOCAL = (
    f"examples/{name}-executor.yaml" for name in ("celery", "kubernetes", "local")
)
AIRFLOW_2, AIRFLOW_3 = "examples/airflow-2.yaml", "examples/airflow-3.yaml"
DAGS, TICKETS = {"s3-sync": "native"}, {"kerberos": "native"}
PERMISSIONS = {"sync-perm": "extra"}
EXTRA, TICKETS_EXTRA = {"s3-sync": "extra"}, {"kerberos": "extra"}
TASK = {"s3-sync": "init", "kerberos": "native"}
WHOLE_3: Kinds = {
    "dag-processor": DAGS,
    "triggerer": DAGS | TICKETS,
    "api-server": PERMISSIONS,
    "task pod": TASK,
}
WHOLE_2: Kinds = {**WHOLE_3, "webserver": PERMISSIONS}
del WHOLE_2["api-server"]
LOOP_3: Kinds = {name: WHOLE_3[name] for name in ("dag-processor", "triggerer", "api-server")}
LOOP_2: Kinds = {"scheduler": DAGS, "triggerer": DAGS | TICKETS, "webserver": PERMISSIONS}

# One sidecar alone, on the chart as it is.
READERS = ("dag-processor", "triggerer", "worker")
READERS_AS_PODS = ("dag-processor", "triggerer", "task pod")
AS_PODS = "executor=KubernetesExecutor"

EXPECTED: dict[tuple[str, ...], Kinds] = {
    ("values.yaml",): WHOLE_3,
    ("values.yaml", "values-dev.yaml"): WHOLE_3,
    ("values.yaml", "values-prd.yaml"): WHOLE_3,
    ("values.yaml", "values-airflow-2.yaml", "values-dev.yaml"): WHOLE_2,
    ("values.yaml", "values-airflow-2.yaml", "values-prd.yaml"): WHOLE_2,
    ("values.yaml", "values-prd.yaml", "examples/fargate.yaml"): WHOLE_3,
    (AIRFLOW_3, CELERY): LOOP_3 | {"worker": DAGS | TICKETS},
    (AIRFLOW_3, KUBERNETES): LOOP_3 | {"task pod": TASK},
    (AIRFLOW_3, LOCAL): LOOP_3 | {"scheduler": DAGS | TICKETS},
    (AIRFLOW_2, CELERY): LOOP_2 | {"worker": DAGS | TICKETS},
    (AIRFLOW_2, KUBERNETES): LOOP_2 | {"task pod": TASK},
    (AIRFLOW_2, LOCAL): LOOP_2 | {"scheduler": DAGS | TICKETS},
    ("s3-sync.extra.yaml",): dict.fromkeys(READERS, EXTRA),
    ("s3-sync.native.yaml",): dict.fromkeys(READERS, DAGS),
    ("s3-sync.snapshot.yaml",): dict.fromkeys(READERS, DAGS),
    ("s3-sync.minio.yaml",): dict.fromkeys(READERS, DAGS),
    (AS_PODS, "s3-sync.gcs.yaml"): dict.fromkeys(READERS_AS_PODS, DAGS),
    (AS_PODS, "s3-sync.native.yaml", "s3-sync.init.yaml"): {
        **dict.fromkeys(READERS_AS_PODS, DAGS),
        "task pod": {"s3-sync": "init"},
    },
    (AS_PODS, "s3-sync.extra.yaml", "s3-sync.init.yaml"): {
        **dict.fromkeys(READERS_AS_PODS, EXTRA),
        "task pod": {"s3-sync": "init"},
    },
    ("sync-perm.extra.yaml",): {"api-server": PERMISSIONS},
    ("airflowVersion=2.11.2", "sync-perm.extra.yaml"): {"webserver": PERMISSIONS},
    ("kerberos.extra.yaml",): dict.fromkeys(("triggerer", "worker"), TICKETS_EXTRA),
    ("kerberos.native.yaml",): dict.fromkeys(("triggerer", "worker"), TICKETS),
    (AS_PODS, "kerberos.native.yaml"): dict.fromkeys(("triggerer", "task pod"), TICKETS),
    (AS_PODS, "kerberos.init.yaml"): {"task pod": {"kerberos": "init"}},
    ("examples/shared-ticket.yaml",): {},
}

each_stack = pytest.mark.parametrize("names", EXPECTED, ids=" ".join)


@functools.cache
def rendered(names: tuple[str, ...]) -> list[Values]:
    with tempfile.TemporaryDirectory() as home:
        return render(Path(home), names)


def whole_pods(names: Sequence[str]) -> list[Values]:
    return list(pods_of(rendered(tuple(names))))


@each_stack
def test_each_sidecar_is_in_the_right_pods(names: tuple[str, ...]) -> None:
    found = {component(pod): pods.kinds(pod["spec"]) for pod in whole_pods(names)}

    assert EXPECTED[names] == {name: kinds for name, kinds in found.items() if kinds}


@each_stack
def test_kubernetes_takes_every_object(names: tuple[str, ...]) -> None:
    for manifest in rendered(names):
        assert [] == strict_complaints(manifest)
    for pod in whole_pods(names):
        if component(pod) == "task pod":
            assert [] == strict_complaints({"apiVersion": "v1", "kind": "Pod", **pod})


@each_stack
def test_pods_are_sound(names: tuple[str, ...]) -> None:
    for pod in whole_pods(names):
        spec = pod["spec"]
        assert [] == [
            *pods.volume_complaints(spec),
            *pods.keytab_complaints(spec),
            *pods.restricted_complaints(spec, only=set(SIDECARS)),
            *(pods.sharing_complaints(spec) if pods.kinds(spec) else []),
        ]


@each_stack
def test_sidecars_get_what_they_read_and_are_asked_on_their_ports(names: tuple[str, ...]) -> None:
    for pod in whole_pods(names):
        spec = pod["spec"]
        ours = pods.kinds(spec)
        values = {
            component(pod): {
                "extraInitContainers": [
                    one for one in spec.get("initContainers") or [] if one["name"] in ours
                ],
                "extraContainers": [one for one in spec["containers"] if one["name"] in ours],
            }
        }
        assert "{{" not in str(values)
        assert [] == [
            *checks.environment_complaints(values),
            *checks.probe_complaints(values),
            *checks.one_shot_complaints(values),
            *checks.security_complaints(values),
        ]


@each_stack
def test_airflow_looks_where_its_files_are(names: tuple[str, ...]) -> None:
    (config,) = (
        one["data"]["airflow.cfg"]
        for one in rendered(names)
        if one["kind"] == "ConfigMap" and "airflow.cfg" in one["data"]
    )
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(config)
    layouts = {
        variable["value"]
        for pod in whole_pods(names)
        for container in pods.containers(pod["spec"])
        for variable in container.get("env") or []
        if variable["name"] == "S3_SYNC_LAYOUT"
    }

    expected = "/opt/airflow/dags/current" if layouts == {"snapshot"} else "/opt/airflow/dags"
    assert expected == parser["core"]["dags_folder"]


@each_stack
def test_task_pods_end_with_their_task(names: tuple[str, ...]) -> None:
    for pod in whole_pods(names):
        if component(pod) == "task pod":
            assert "Never" == pod["spec"]["restartPolicy"]
            assert ["base"] == [one["name"] for one in pod["spec"]["containers"]]


@pytest.mark.parametrize("names", [n for n in EXPECTED if n[0] == files.WHOLE], ids=" ".join)
def test_whole_deployment_passes_pod_security_restricted(names: tuple[str, ...]) -> None:
    for pod in whole_pods(names):
        assert [] == list(pods.restricted_complaints(pod["spec"])), component(pod)


@pytest.mark.parametrize(
    "name", ["network/network-policy.yaml", "network/security-group-policy.yaml"]
)
def test_policies_select_every_pod_with_a_sidecar(name: str) -> None:
    for policy in files.load_objects(name):
        selector = policy["spec"]["podSelector"]
        for names in EXPECTED:
            for pod in whole_pods(names):
                if pods.kinds(pod["spec"]):
                    labels = pod["metadata"]["labels"]
                    assert selector["matchLabels"].items() <= labels.items()
                    for one in selector.get("matchExpressions", []):
                        assert labels[one["key"]] in one["values"]


@each_stack
def test_pods_that_read_the_bucket_have_the_role(names: tuple[str, ...]) -> None:
    annotations = {
        one["metadata"]["name"]: one["metadata"].get("annotations") or {}
        for one in rendered(names)
        if one["kind"] == "ServiceAccount"
    }
    for pod in whole_pods(names):
        container = next(
            (one for one in pods.containers(pod["spec"]) if one["name"] == "s3-sync"), None
        )
        if container is not None:
            has_keys = "AWS_ACCESS_KEY_ID" in {one["name"] for one in container["env"]}
            role = annotations[pod["spec"]["serviceAccountName"]].get("eks.amazonaws.com/role-arn")
            assert has_keys or str(role).startswith("arn:aws:iam::111122223333:role/airflow")
