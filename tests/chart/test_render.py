"""
The values, rendered by the official chart; needs `helm` and the whole chart.
"""

import configparser
import json
from collections.abc import Iterator

import pytest

from tests.chart import files, pods
from tests.chart.kubernetes import strict_complaints
from tests.chart.rendering import (
    CAN_RENDER,
    HOW_TO_RENDER,
    component,
    rendered,
    rendered_pods,
)
from tests.chart.sidecars import DAGS_FOLDER, SIDECARS, Values, environment
from tests.chart.stacks import DAILY, EXPECTED, IN_THE_CHART, Stack

if not CAN_RENDER:
    pytest.skip(HOW_TO_RENDER, allow_module_level=True)

each_stack = pytest.mark.parametrize("stack", DAILY, ids=" ".join)
FOLDER = "AIRFLOW__CORE__DAGS_FOLDER"
BUNDLES = "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"
# Where the chart looks for the commits of its own git-sync.
FOLDERS = {"git-sync-wrapper.chart.yaml": "/opt/airflow/dags/repo/dags"}


def ours(stack: Stack) -> Iterator[tuple[str, Values]]:
    """
    Yield the component of each sidecar, and its container.
    """
    for pod in rendered_pods(stack):
        for one in pods.containers(pod["spec"]):
            if one["name"] in SIDECARS:
                yield component(pod), one


@each_stack
def test_each_sidecar_is_in_the_right_pods(stack: Stack) -> None:
    found = {component(pod): pods.kinds(pod["spec"]) for pod in rendered_pods(stack)}

    assert EXPECTED[stack] == {name: kinds for name, kinds in found.items() if kinds}


@each_stack
def test_every_object_matches_the_kubernetes_schemas(stack: Stack) -> None:
    for manifest in rendered(stack):
        assert [] == strict_complaints(manifest)
    for pod in rendered_pods(stack):
        if component(pod) == "task pod":
            assert [] == strict_complaints({"apiVersion": "v1", "kind": "Pod", **pod})


@each_stack
def test_pods_pass_every_check(stack: Stack) -> None:
    for pod in rendered_pods(stack):
        spec = pod["spec"]
        found = (
            pods.complaints(spec)
            if pods.kinds(spec)
            else [*pods.volume_complaints(spec)]
        )
        assert [] == [*found, *pods.keytab_complaints(spec)]


def folder_of(pod: Values) -> set[str]:
    """
    Return the folders that the sidecars of a pod fill for Airflow.
    """
    found = set()
    for container in pods.containers(pod["spec"]):
        given = environment(container)
        if container["name"] == "s3-sync":
            is_snapshot = given.get("S3_SYNC_LAYOUT") == "snapshot"
            found.add(given["DEST_PATH"] + "/current" * is_snapshot)
        elif container["name"] == "git-sync-wrapper":
            found.add(f"{given['GITSYNC_ROOT']}/{given['GITSYNC_LINK']}/dags")
            assert "-1" == given["GITSYNC_MAX_FAILURES"]
    return found


def settings_of(stack: Stack) -> configparser.ConfigParser:
    """
    Return the airflow.cfg that all pods of a deployment share.
    """
    (text,) = (
        one["data"]["airflow.cfg"]
        for one in rendered(stack)
        if one["kind"] == "ConfigMap" and "airflow.cfg" in one["data"]
    )
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(text)
    return parser


@each_stack
def test_airflow_reads_the_folder_that_the_sidecar_of_its_own_pod_fills(
    stack: Stack,
) -> None:
    """
    Whatever airflow.cfg says: a pod that restarts during a change of the values reads
    the new one, but still has the old sidecar.
    """
    for pod in rendered_pods(stack):
        filled = folder_of(pod)
        airflow = pod["spec"]["containers"][0]
        if filled and airflow["name"] not in SIDECARS:
            assert filled == {environment(airflow).get(FOLDER)}, component(pod)


@each_stack
def test_shared_settings_name_no_folder_or_bundle_of_a_sidecar(stack: Stack) -> None:
    shared = settings_of(stack)
    folders = {folder for name, folder in FOLDERS.items() if name in stack}

    assert shared["core"]["dags_folder"] in (folders or {DAGS_FOLDER})
    if "AIRFLOW=2" not in str(stack) and "airflowVersion=2" not in str(stack):
        (bundle,) = json.loads(shared["dag_processor"]["dag_bundle_config_list"])
        assert bundle["classpath"].endswith(".LocalDagBundle")
        assert {} == bundle["kwargs"]


@each_stack
def test_all_pods_have_the_dags_of_one_source_in_one_folder(stack: Stack) -> None:
    names = ("AWS_BUCKET", "KEY_PATH", "S3_SYNC_SOURCE", "GITSYNC_REPO", "GITSYNC_REF")
    given = [environment(container) for _, container in ours(stack)]
    sources = {tuple(one.get(name) for name in names) for one in given}
    folders = set().union(*map(folder_of, rendered_pods(stack)))

    sources.discard((None,) * 5)
    assert len(sources) <= 1
    assert len(folders) <= 1


@pytest.mark.parametrize(
    "stack", [one for one in DAILY if "AIRFLOW=2" in str(one)], ids=" ".join
)
def test_scheduler_of_airflow_2_has_the_folder_of_the_pods_that_run_its_tasks(
    stack: Stack,
) -> None:
    """
    It tells them the file of a task by its path relative to its own folder.
    """
    found = {
        component(pod): environment(pod["spec"]["containers"][0]).get(FOLDER)
        for pod in rendered_pods(stack)
    }

    assert found.get("dag-processor") == found["scheduler"]


@pytest.mark.parametrize(
    "stack", [one for one in DAILY if "examples/git-sync" in str(one)], ids=" ".join
)
def test_all_pods_read_the_claim_of_a_git_sync_of_its_own(stack: Stack) -> None:
    for pod in rendered_pods(stack):
        for container in pod["spec"]["containers"]:
            paths = [one["mountPath"] for one in container.get("volumeMounts") or []]
            if DAGS_FOLDER in paths and container["name"] in ("base", component(pod)):
                assert f"{DAGS_FOLDER}/current" == environment(container)[FOLDER]


@each_stack
def test_task_pods_have_no_gate_because_one_bad_dag_would_block_all_tasks(
    stack: Stack,
) -> None:
    gated = [name for name, one in ours(stack) if "_GATE'" in str(one)]

    assert "task pod" not in gated
    assert bool(gated) == any("GATE=1" in name for name in stack)


@pytest.mark.parametrize(
    "stack", [one for one in DAILY if "VERSIONS" in str(one)], ids=" ".join
)
def test_every_airflow_has_the_bundle_of_the_link_and_its_module(stack: Stack) -> None:
    """
    Every one: `airflow dags reserialize` deactivates all bundles but its own.
    """
    filled = set().union(*map(folder_of, rendered_pods(stack)))
    found = set()
    for pod in rendered_pods(stack):
        for container in pod["spec"]["containers"]:
            if container["name"] not in ("base", component(pod)):
                continue
            if "airflow.cfg" not in str(container.get("volumeMounts")):
                continue
            mounts = {one["name"]: one for one in container["volumeMounts"]}
            found.add(component(pod))
            variables = environment(container)
            (bundle,) = json.loads(variables[BUNDLES])
            given = bundle["kwargs"]
            folder = f"{given['path']}/{given.get('subdir', '')}".rstrip("/")
            assert {folder} == filled
            assert "{version}" in given["view_url_template"]
            assert variables["PYTHONPATH"] == mounts["sidecar-bundle"]["mountPath"]
    assert {"api-server", "dag-processor", "scheduler"} <= found


@pytest.mark.parametrize("stack", IN_THE_CHART, ids=" ".join)
def test_drop_in_replaces_the_charts_git_sync_in_every_pod(stack: Stack) -> None:
    found = [
        one
        for pod in rendered_pods(stack)
        for one in pods.containers(pod["spec"])
        if one["name"].startswith("git-sync")
    ]

    for pod in rendered_pods(stack):
        ours = {"git-sync", "git-sync-init"}
        assert [] == list(pods.restricted_complaints(pod["spec"], only=ours))
    assert {"git-sync", "git-sync-init"} == {one["name"] for one in found}
    for container in found:
        assert "/git-sync-wrapper:" in container["image"]
        given = environment(container)
        mine = {
            name: one
            for name, one in given.items()
            if name.startswith("GIT_SYNC_WRAPPER")
        }
        assert [] == SIDECARS["git-sync-wrapper"].complaints(
            mine | {"GITSYNC_REPO": given["GITSYNC_REPO"]}
        )
        assert ("codecommit" in str(stack)) == ("GITSYNC_PASSWORD" not in given)


@each_stack
def test_network_policies_and_security_groups_select_every_pod_with_a_sidecar(
    stack: Stack,
) -> None:
    selectors = [
        policy["spec"]["podSelector"]
        for name in (
            "network/network-policy.yaml",
            "network/security-group-policy.yaml",
        )
        for policy in files.load_objects(name)
    ]
    for pod in rendered_pods(stack):
        labels = pod["metadata"]["labels"]
        if pods.kinds(pod["spec"]):
            for one in selectors:
                assert one["matchLabels"].items() <= labels.items()
                for it in one.get("matchExpressions", []):
                    assert labels[it["key"]] in it["values"]


@each_stack
def test_pods_that_read_the_bucket_have_a_role_or_keys(stack: Stack) -> None:
    annotations = {
        one["metadata"]["name"]: one["metadata"].get("annotations") or {}
        for one in rendered(stack)
        if one["kind"] == "ServiceAccount"
    }
    for pod in rendered_pods(stack):
        for container in pods.containers(pod["spec"]):
            if container["name"] == "s3-sync":
                role = annotations[pod["spec"]["serviceAccountName"]].get(
                    "eks.amazonaws.com/role-arn"
                )
                has_keys = "AWS_ACCESS_KEY_ID" in environment(container)
                assert has_keys or str(role).startswith(
                    "arn:aws:iam::111122223333:role/airflow"
                )
