"""
The values, rendered by the official chart; needs `helm` and the whole chart.
"""

import configparser
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.chart import files, pods, printed
from tests.chart.kubernetes import strict_complaints
from tests.chart.rendering import (
    CAN_RENDER,
    HOW_TO_RENDER,
    component,
    render,
    rendered,
    rendered_pods,
)
from tests.chart.sidecars import DAGS_FOLDER, SIDECARS, Values, environment
from tests.chart.stacks import DAILY, WHOLE, Stack, asked

if not CAN_RENDER:
    pytest.skip(HOW_TO_RENDER, allow_module_level=True)

CHECKS: list[Callable[[Stack], None]] = []
# Where the chart looks for the commits of its own git-sync.
OF_THE_CHART = "/opt/airflow/dags/repo/dags"
FOLDER = "AIRFLOW__CORE__DAGS_FOLDER"
BUNDLES = "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"


def each_stack(check: Callable[[Stack], None]) -> Callable[[Stack], None]:
    """
    Run a check for the stacks of every day; `--full` runs it for all.
    """
    CHECKS.append(check)
    return pytest.mark.parametrize("stack", DAILY, ids=" ".join)(check)


def airflows(stack: Stack) -> Iterator[tuple[str, Values]]:
    """
    Yield the component of each container of Airflow, and the container.
    """
    for pod in rendered_pods(stack):
        for one in pod["spec"]["containers"]:
            is_airflow = "airflow.cfg" in str(one.get("volumeMounts"))
            if is_airflow and one["name"] in ("base", component(pod)):
                yield component(pod), one


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

    assert printed.kinds(asked(stack)) == {
        name: kinds for name, kinds in found.items() if kinds
    }


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
            pods.complaints(spec) if pods.kinds(spec) else pods.volume_complaints(spec)
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
            found.add(
                given["DEST_PATH"]
                + "/current" * (given.get("S3_SYNC_LAYOUT") == "snapshot")
            )
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
    often = ("scheduler", "dag_dir_list_interval")
    if asked(stack)["AIRFLOW"] != "2":
        often = ("dag_processor", "refresh_interval")
        (bundle,) = json.loads(shared["dag_processor"]["dag_bundle_config_list"])
        assert bundle["classpath"].endswith(".LocalDagBundle")
        assert ("dags-folder", {}) == (bundle["name"], bundle["kwargs"])

    assert (
        OF_THE_CHART if asked(stack)["SOURCE"] == "chart-git" else DAGS_FOLDER
    ) == shared["core"]["dags_folder"]
    if asked(stack)["SOURCE"]:
        assert "5" == shared[often[0]][often[1]]


@each_stack
def test_all_pods_have_the_dags_of_one_source_in_one_folder(stack: Stack) -> None:
    """
    The scheduler of Airflow 2 tells pods the file of a task by its path relative to its
    own folder.
    """
    names = ("AWS_BUCKET", "KEY_PATH", "S3_SYNC_SOURCE", "GITSYNC_REPO", "GITSYNC_REF")
    sources = {
        tuple(map(environment(container).get, names)) for _, container in ours(stack)
    }
    found = {name: environment(one).get(FOLDER) for name, one in airflows(stack)}

    sources.discard((None,) * 5)
    assert len(sources) <= 1
    assert len(set().union(*map(folder_of, rendered_pods(stack)))) <= 1
    if asked(stack)["AIRFLOW"] == "2":
        assert found.get("dag-processor") == found["scheduler"]
    if "examples/git-sync-deployment.yaml" in stack:
        assert {f"{DAGS_FOLDER}/current"} == {*found.values()}


@each_stack
def test_task_pods_have_no_gate_because_one_bad_dag_would_block_all_tasks(
    stack: Stack,
) -> None:
    gated = {
        component(pod)
        for pod in rendered_pods(stack)
        for one in pods.containers(pod["spec"])
        if any(name.endswith("_GATE") for name in environment(one))
    }

    assert "task pod" not in gated
    assert bool(gated) == any("GATE=1" in name for name in stack)


@each_stack
def test_every_airflow_has_the_bundle_of_the_link_and_its_module(stack: Stack) -> None:
    """
    Every one: `airflow dags reserialize` deactivates all bundles but its own.
    """
    if not asked(stack)["VERSIONS"]:
        return
    filled = set().union(*map(folder_of, rendered_pods(stack)))
    found = dict(airflows(stack))
    for container in found.values():
        mounts = {one["name"]: one for one in container["volumeMounts"]}
        variables = environment(container)
        (bundle,) = json.loads(variables[BUNDLES])
        given = bundle["kwargs"]
        assert {f"{given['path']}/{given.get('subdir', '')}".rstrip("/")} == filled
        assert "{version}" in given["view_url_template"]
        assert variables["PYTHONPATH"] == mounts["sidecar-bundle"]["mountPath"]
    assert {"api-server", "dag-processor", "scheduler"} <= found.keys()


@each_stack
def test_chart_runs_our_image_as_its_git_sync_in_every_pod(stack: Stack) -> None:
    of_the_chart = {"git-sync", "git-sync-init"}
    found = [
        one
        for pod in rendered_pods(stack)
        for one in pods.containers(pod["spec"])
        if one["name"] in of_the_chart
    ]

    assert bool(found) == (asked(stack)["SOURCE"] == "chart-git")
    for pod in rendered_pods(stack):
        assert [] == [*pods.restricted_complaints(pod["spec"], only=of_the_chart)]
    for container in found:
        assert "/git-sync-wrapper:" in container["image"]
        given = environment(container)
        assert [] == SIDECARS["git-sync-wrapper"].complaints(
            {
                name: one
                for name, one in given.items()
                if name.startswith("GIT_SYNC_WRAPPER")
            }
            | {"GITSYNC_REPO": given["GITSYNC_REPO"]}
        )
        assert ("codecommit" in str(stack)) == ("GITSYNC_PASSWORD" not in given)
        assert given["GIT_SYNC_BRANCH"] == given["GITSYNC_REF"]


@each_stack
def test_s3_sync_gets_what_the_words_ask_for(stack: Stack) -> None:
    words = asked(stack)
    is_release = words["SOURCE"] == "release"
    marks = {
        "S3_SYNC_SOURCE": is_release,
        "S3_SYNC_LAYOUT": is_release or words["LAYOUT"] or words["GATE"],
        "S3_SYNC_TRUSTED_KEYS": words["SIGNED"],
        "AWS_ENDPOINT_URL_S3": words["ENDPOINT"],
        "AWS_SECRET_ACCESS_KEY": words["ENDPOINT"],
        "AWS_CA_BUNDLE": words["ENDPOINT"] == "ca",
    }
    for name, container in ours(stack):
        if container["name"] == "s3-sync":
            assert {one for one, is_set in marks.items() if is_set} == (
                marks.keys() & environment(container)
            ), name


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
    roles = {
        one["metadata"]["name"]: str(one["metadata"].get("annotations"))
        for one in rendered(stack)
        if one["kind"] == "ServiceAccount"
    }
    for pod in rendered_pods(stack):
        if "s3-sync" in pods.kinds(pod["spec"]):
            account = pod["spec"]["serviceAccountName"]
            has_role = not asked(stack)["ENDPOINT"]
            assert ("role/airflow" in roles[account]) == has_role
            assert f':airflow:{account}"' in files.text("iam/trust-irsa.json")
            if component(pod) == "task pod":
                assert account.endswith("-worker-kubernetes") == has_role


@pytest.mark.parametrize("stack", WHOLE, ids=" ".join)
def test_an_upgrade_makes_no_new_key(stack: Stack) -> None:
    """
    Only what is made before a first installation, and then kept, is a hook.
    """
    secrets = [one["metadata"] for one in rendered(stack) if one["kind"] == "Secret"]

    assert [] == [one["name"] for one in secrets if "annotations" not in one]


def test_remedy_of_the_page_leaves_no_rolling_update_beside_recreate(
    tmp_path: Path,
) -> None:
    """
    Kubernetes refuses a Deployment that has both.
    """
    values = tmp_path / "values.yaml"
    values.write_text(
        (files.SNIPPETS.parent / "docs/how-to/find-out-what-is-wrong.md")
        .read_text()
        .partition("```yaml\n")[2]
        .partition("```")[0]
    )

    assert [{"type": "Recreate"}] == [
        one["spec"]["strategy"]
        for one in render(tmp_path, (str(values),))
        if one["metadata"]["name"] == "airflow-dag-processor"
        and one["kind"] == "Deployment"
    ]


@pytest.mark.usefixtures("only_in_full")
@pytest.mark.timeout(7200)
def test_every_other_output_passes_every_check() -> None:
    """
    Each one takes a third of a second, of which helm takes most.
    """
    for name in sorted(printed.ALL.keys() - printed.FEW.keys()):
        for check in CHECKS:
            check((name,))
        rendered.cache_clear()
        rendered_pods.cache_clear()
