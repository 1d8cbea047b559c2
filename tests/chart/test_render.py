"""
The values, rendered by the official chart; needs `helm` and the whole chart.
"""

import configparser
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
from tests.chart.sidecars import SIDECARS, Values, environment
from tests.chart.stacks import DAILY, EXPECTED, IN_THE_CHART, Stack

if not CAN_RENDER:
    pytest.skip(HOW_TO_RENDER, allow_module_level=True)

each_stack = pytest.mark.parametrize("stack", DAILY, ids=" ".join)
# Where git-sync inside the chart, or in a Deployment of its own, publishes.
FOLDERS = {
    "examples/git-sync-deployment.yaml": "/opt/airflow/dags/current",
    "git-sync-wrapper.chart.yaml": "/opt/airflow/dags/repo/dags",
}


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


@each_stack
def test_every_pod_has_the_dags_of_one_source_below_the_dags_folder(
    stack: Stack,
) -> None:
    (config,) = (
        one["data"]["airflow.cfg"]
        for one in rendered(stack)
        if one["kind"] == "ConfigMap" and "airflow.cfg" in one["data"]
    )
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(config)
    sources, links = (
        set(),
        {folder for name, folder in FOLDERS.items() if name in stack},
    )
    for _, container in ours(stack):
        given = environment(container)
        if "DEST_PATH" in given:
            links.add(
                given["DEST_PATH"]
                + "/current" * (given.get("S3_SYNC_LAYOUT") == "snapshot")
            )
        elif "GITSYNC_LINK" in given:
            links.add(f"{given['GITSYNC_ROOT']}/{given['GITSYNC_LINK']}/dags")
            assert "-1" == given["GITSYNC_MAX_FAILURES"]
        names = (
            "AWS_BUCKET",
            "KEY_PATH",
            "S3_SYNC_SOURCE",
            "GITSYNC_REPO",
            "GITSYNC_REF",
        )
        sources.add(tuple(given.get(name) for name in names))

    sources.discard((None,) * 5)
    assert len(sources) <= 1
    assert (links or {"/opt/airflow/dags"}) == {parser["core"]["dags_folder"]}


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
def test_the_bundle_reads_the_link_and_its_module_is_on_the_path(stack: Stack) -> None:
    values = files.load(stack[0])
    (bundle,) = values["dagProcessor"]["dagBundleConfigList"]
    given = bundle["kwargs"]
    folder = f"{given['path']}/{given.get('subdir', '')}".rstrip("/")

    assert folder == values["config"]["core"]["dags_folder"]
    assert "{version}" in given["view_url_template"]
    for pod in rendered_pods(stack):
        for container in pod["spec"]["containers"]:
            mounts = {one["name"]: one for one in container.get("volumeMounts") or []}
            if "sidecar-bundle" in mounts and container["name"] in (
                "base",
                component(pod),
            ):
                assert (
                    environment(container)["PYTHONPATH"]
                    == mounts["sidecar-bundle"]["mountPath"]
                )


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
