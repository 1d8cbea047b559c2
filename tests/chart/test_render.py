"""
The snippets rendered by the official chart; needs `helm` and the whole chart.
"""

from __future__ import annotations

import configparser
import copy
import functools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.chart import files
from tests.chart.rendered import start
from tests.chart.rendered.rendering import CAN_RENDER, HOW_TO_RENDER, component, render
from tests.chart.rendered.rendering import pods as pods_of
from tests.chart.rendered.stacks import AS_CELERY, DAILY, EXPECTED, FOLDERS, IN_THE_CHART
from tests.chart.rules import checks, pods
from tests.chart.rules.kubernetes import strict_complaints
from tests.chart.rules.sidecars import SIDECARS, Values, environment
from tests.chart.rules.traffic import Pod, Traffic, admits

if not CAN_RENDER:
    pytest.skip(HOW_TO_RENDER, allow_module_level=True)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """
    Parametrize `stack`: with every output of `make values` if `--full`, otherwise with a dozen.
    """
    if "stack" in metafunc.fixturenames:
        is_full = metafunc.config.getoption("--full")
        metafunc.parametrize("stack", EXPECTED if is_full else DAILY, ids=" ".join)


@functools.cache
def rendered(names: tuple[str, ...]) -> list[Values]:
    with tempfile.TemporaryDirectory() as home:
        return render(Path(home), names)


def whole_pods(names: Sequence[str]) -> list[Values]:
    return list(pods_of(rendered(tuple(names))))


def test_each_sidecar_is_in_the_right_pods(stack: tuple[str, ...]) -> None:
    found = {component(pod): pods.kinds(pod["spec"]) for pod in whole_pods(stack)}

    assert EXPECTED[stack] == {name: kinds for name, kinds in found.items() if kinds}


def test_every_object_matches_the_kubernetes_schemas(stack: tuple[str, ...]) -> None:
    for manifest in rendered(stack):
        assert [] == strict_complaints(manifest)
    for pod in whole_pods(stack):
        if component(pod) == "task pod":
            assert [] == strict_complaints({"apiVersion": "v1", "kind": "Pod", **pod})


def test_pods_pass_volume_keytab_security_and_sharing_checks(stack: tuple[str, ...]) -> None:
    for pod in whole_pods(stack):
        spec = pod["spec"]
        assert [] == [
            *pods.volume_complaints(spec),
            *pods.keytab_complaints(spec),
            *pods.restricted_complaints(spec, only=set(SIDECARS)),
            *(pods.sharing_complaints(spec) if pods.kinds(spec) else []),
        ]


def test_sidecars_have_valid_variables_probes_and_security_contexts(stack: tuple[str, ...]) -> None:
    for pod in whole_pods(stack):
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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("started")


_started: dict[str, list[str]] = {}


def started(names: tuple[str, ...], pod: Values, container: Values, folder: Path) -> list[str]:
    """
    Start a container as a process, once for equal containers; return its complaints.
    """
    identity = start.identity_of(container)
    if identity not in _started:
        maps = {
            one["metadata"]["name"]: one.get("data") or {}
            for one in rendered(names)
            if one["kind"] == "ConfigMap"
        }
        _started[identity] = start.Started(pod, container, maps, folder).complaints()
    return _started[identity]


def test_each_sidecar_starts_and_fails_only_for_lack_of_a_network(
    stack: tuple[str, ...], folder: Path
) -> None:
    left_out = set()
    for pod in whole_pods(stack):
        for container in filter(start.sidecar_of, pods.containers(pod["spec"])):
            if reason := start.skip_reason(container, folder):
                left_out.add(reason)
            else:
                assert [] == started(stack, pod["spec"], container, folder)

    if left_out:
        pytest.skip(", ".join(left_out))


def _variable(container: Values, name: str) -> Values:
    return files.named(container["env"], name)


PLANTED: dict[str, tuple[tuple[str, ...], str, Callable[[Values], object]]] = {
    "a misspelled variable": (
        ("s3-sync.extra.yaml",),
        "AWS_BUCKET",
        lambda one: _variable(one, "AWS_BUCKET").update(name="AWS_BUKET"),
    ),
    "an invalid value": (
        ("values.yaml", "values-prd.yaml"),
        "S3_SYNC_SOURCE",
        lambda one: _variable(one, "S3_SYNC_SOURCE").update(value="releases"),
    ),
    "a ccache outside of the mounted volume": (
        ("kerberos.native.yaml",),
        "ccache_",
        lambda one: _variable(one, "KERBEROS_CCACHE").update(value="/var/ccache/krb5cc"),
    ),
    "a misspelled variable of an older Airflow": (
        ("sync-perm.extra.yaml",),
        "SQL_ALCHEMY_CONN",
        lambda one: one["env"][0].update(name="AIRFLOW__CORE__SQLALCHEMY_CONN"),
    ),
    "a root that is not mounted": (
        ("git-sync-wrapper.extra.yaml",),
        "target_",
        lambda one: _variable(one, "GITSYNC_ROOT").update(value="/gits"),
    ),
}


@pytest.mark.parametrize(("names", "says", "plant"), PLANTED.values(), ids=PLANTED.keys())
def test_starting_a_sidecar_reveals_a_planted_fault(
    names: tuple[str, ...], says: str, plant: Callable[[Values], object], folder: Path
) -> None:
    spec, container = next(
        (pod["spec"], one)
        for pod in copy.deepcopy(whole_pods(names))
        for one in pods.containers(pod["spec"])
        if start.sidecar_of(one)
    )
    plant(container)
    if reason := start.skip_reason(container, folder):
        pytest.skip(reason)

    (complaint,) = started(names, spec, container, folder)

    assert says in complaint


def test_dags_folder_is_where_the_dags_are_published(stack: tuple[str, ...]) -> None:
    (config,) = (
        one["data"]["airflow.cfg"]
        for one in rendered(stack)
        if one["kind"] == "ConfigMap" and "airflow.cfg" in one["data"]
    )
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(config)
    layouts = {
        environment(container).get("S3_SYNC_LAYOUT")
        for pod in whole_pods(stack)
        for container in pods.containers(pod["spec"])
        if container["name"] == "s3-sync"
    }

    own = [FOLDERS[name] for name in stack if name in FOLDERS]
    own += ["/git/repo/dags" for name in stack if "SOURCE=git" in name]
    expected = "/opt/airflow/dags/current" if layouts == {"snapshot"} else "/opt/airflow/dags"
    expected = own[0] if own else expected
    assert expected == parser["core"]["dags_folder"]
    assert len(layouts) <= 1


@pytest.mark.parametrize("names", [n for n in EXPECTED if set(n) & IN_THE_CHART], ids=" ".join)
def test_drop_in_replaces_the_charts_git_sync_in_every_pod(names: tuple[str, ...]) -> None:
    found = [
        container
        for pod in whole_pods(names)
        for container in pods.containers(pod["spec"])
        if container["name"].startswith("git-sync")
    ]
    known = SIDECARS["git-sync-wrapper"].variables

    for pod in whole_pods(names):
        ours = {"git-sync", "git-sync-init"}
        assert [] == list(pods.restricted_complaints(pod["spec"], only=ours))
    assert {"git-sync", "git-sync-init"} == {one["name"] for one in found}
    for container in found:
        assert container["image"].endswith("/git-sync-wrapper:0.2.0")
        assert set() == {one["name"] for one in container["env"]} - known
        SIDECARS["git-sync-wrapper"].load(environment(container))


@pytest.mark.parametrize("executor", ["CeleryExecutor", "KubernetesExecutor"])
def test_shared_ticket_is_mounted_where_tasks_run(executor: str) -> None:
    names = (f"executor={executor}", "s3-sync.native.yaml", "examples/shared-ticket.yaml")
    found = {component(pod): pod["spec"] for pod in whole_pods(names)}

    for name in ("triggerer", "worker" if executor == "CeleryExecutor" else "task pod"):
        airflow = next(one for one in found[name]["containers"] if one["name"] not in SIDECARS)
        variables = {one["name"]: one.get("value") for one in airflow["env"]}
        mounts = {one["mountPath"]: one for one in airflow["volumeMounts"]}
        assert "FILE:/var/kerberos-ccache/cache" == variables["KRB5CCNAME"]
        assert mounts["/var/kerberos-ccache"]["readOnly"] is True
        assert mounts["/opt/airflow/dags"]["readOnly"] is True
        assert [] == list(pods.volume_complaints(found[name]))


def test_task_pods_have_only_the_base_container_and_never_restart(stack: tuple[str, ...]) -> None:
    for pod in whole_pods(stack):
        if component(pod) == "task pod":
            assert "Never" == pod["spec"]["restartPolicy"]
            assert ["base"] == [one["name"] for one in pod["spec"]["containers"]]


@pytest.mark.parametrize("names", [n for n in EXPECTED if files.WHOLE in n], ids=" ".join)
def test_whole_deployment_passes_pod_security_restricted(names: tuple[str, ...]) -> None:
    for pod in whole_pods(names):
        assert [] == list(pods.restricted_complaints(pod["spec"])), component(pod)


def test_only_redis_claims_a_volume_in_a_whole_deployment_with_celery() -> None:
    claims = {
        one["metadata"]["name"]: one["spec"]["volumeClaimTemplates"]
        for one in rendered((AS_CELERY, files.WHOLE, "values-prd.yaml"))
        if one["kind"] == "StatefulSet" and one["spec"].get("volumeClaimTemplates")
    }

    assert {"airflow-redis"} == claims.keys()


@pytest.mark.parametrize(
    "name", ["network/network-policy.yaml", "network/security-group-policy.yaml"]
)
def test_policies_select_every_pod_with_a_sidecar(name: str) -> None:
    for policy in files.load_objects(name):
        selector = policy["spec"]["podSelector"]
        for names in DAILY:
            for pod in whole_pods(names):
                if pods.kinds(pod["spec"]):
                    labels = pod["metadata"]["labels"]
                    assert selector["matchLabels"].items() <= labels.items()
                    for one in selector.get("matchExpressions", []):
                        assert labels[one["key"]] in one["values"]


PROMETHEUS = Pod({"app": "prometheus"}, "monitoring")
DNS = Pod({"k8s-app": "kube-dns"}, "kube-system")
STRANGER = Pod({"app": "stranger"}, "default")
LOAD_BALANCER, KDC, DATABASE, S3 = "10.0.5.7", "10.0.10.5", "10.0.20.5", "52.219.1.1"


@pytest.mark.parametrize("names", [n for n in EXPECTED if n[0] == files.WHOLE], ids=" ".join)
def test_network_policies_allow_only_required_connections(names: tuple[str, ...]) -> None:
    policies = [one for one in rendered(names) if one["kind"] == "NetworkPolicy"]
    policies += files.load_objects("network/network-policy.yaml")
    found = {component(pod): Pod(pod["metadata"]["labels"]) for pod in whole_pods(names)}
    web = found.get("api-server") or found["webserver"]
    task, triggerer, statsd = (found[name] for name in ("task pod", "triggerer", "statsd"))
    dag_processor, scheduler = found["dag-processor"], found["scheduler"]
    must: list[Traffic] = [
        *[(dag_processor, PROMETHEUS, ("TCP", 9811)), (task, PROMETHEUS, ("TCP", 9813))],
        *[(web, PROMETHEUS, ("TCP", 9812)), (web, LOAD_BALANCER, ("TCP", 8080))],  # type: ignore[list-item]
        *[(web, one, ("TCP", 8080)) for one in (task, triggerer, dag_processor, scheduler)],
        *[(triggerer, web, ("TCP", 8794)), (statsd, scheduler, ("UDP", 9125))],
    ]
    must_not: list[Traffic] = [
        *[(web, STRANGER, ("TCP", 8080)), (dag_processor, STRANGER, ("TCP", 9811))],
        *[(scheduler, PROMETHEUS, ("TCP", 8793)), (triggerer, LOAD_BALANCER, ("TCP", 8794))],  # type: ignore[list-item]
    ]
    may_ask: list[Traffic] = [
        *[(one, DNS, ("UDP", 53)) for one in (task, web, scheduler)],
        *[(task, S3, ("TCP", 443)), (dag_processor, S3, ("TCP", 443)), (web, S3, ("TCP", 443))],
        *[(task, KDC, ("UDP", 88)), (triggerer, KDC, ("TCP", 88))],
        *[(web, DATABASE, ("TCP", 5432)), (scheduler, DATABASE, ("TCP", 5432))],
        *[(task, web, ("TCP", 8080)), (scheduler, statsd, ("UDP", 9125))],
        (dag_processor, "169.254.170.23", ("TCP", 80)),
        *[(task, "169.254.20.10", ("UDP", 53)), (task, "169.254.20.10", ("TCP", 53))],
    ]
    may_not_ask: list[Traffic] = [
        (task, "169.254.20.10", ("TCP", 80)),
        *[(task, "169.254.169.254", ("TCP", 80)), (task, "169.254.169.254", ("TCP", 443))],
        *[(task, STRANGER, ("TCP", 443)), (task, "52.219.1.1", ("TCP", 80))],  # type: ignore[list-item]
    ]

    assert [] == [one for one in must if not _admits(policies, "Ingress", one)]
    assert [] == [one for one in must_not if _admits(policies, "Ingress", one)]
    assert [] == [one for one in may_ask if not _admits(policies, "Egress", one)]
    assert [] == [one for one in may_not_ask if _admits(policies, "Egress", one)]


def _admits(policies: list[Values], direction: str, traffic: Traffic) -> bool:
    return admits(policies, traffic[0], direction, *traffic[1:])


def test_pods_that_read_the_bucket_have_a_role_or_keys(stack: tuple[str, ...]) -> None:
    annotations = {
        one["metadata"]["name"]: one["metadata"].get("annotations") or {}
        for one in rendered(stack)
        if one["kind"] == "ServiceAccount"
    }
    for pod in whole_pods(stack):
        container = next(
            (one for one in pods.containers(pod["spec"]) if one["name"] == "s3-sync"), None
        )
        if container is not None:
            has_keys = "AWS_ACCESS_KEY_ID" in {one["name"] for one in container["env"]}
            role = annotations[pod["spec"]["serviceAccountName"]].get("eks.amazonaws.com/role-arn")
            assert has_keys or str(role).startswith("arn:aws:iam::111122223333:role/airflow")
