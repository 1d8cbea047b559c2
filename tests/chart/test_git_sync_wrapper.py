"""
Checks for the git-sync-wrapper snippets only, including the drop-in for the chart's git-sync.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from git_sync_wrapper.settings import PREFIX, Settings
from sidecar_runtime.settings import names_of
from tests.chart import files
from tests.chart.rendered.rendering import CAN_RENDER, HOW_TO_RENDER, pods, render
from tests.chart.rules import checks
from tests.chart.rules.pods import restricted_rules
from tests.chart.rules.sidecars import environment, git_sync_variables

ONE_VOLUME = Path(__file__).parents[2] / "docs/how-to/share-one-volume-between-all-pods.md"

WITHIN_THE_CHART = ["git-sync-wrapper.chart.yaml", "git-sync-wrapper.codecommit.yaml"]
ON_THEIR_OWN = ["git-sync-wrapper.extra.yaml", "git-sync-wrapper.native.yaml"]


@pytest.mark.parametrize("name", [*ON_THEIR_OWN, "git-sync-wrapper.init.yaml"])
def test_dags_folder_is_below_the_published_link(name: str) -> None:
    values = files.load(name)
    folder = values["config"]["core"]["dags_folder"]
    for _, component in checks.components(values):
        for one in map(environment, checks.containers(component)):
            assert folder.startswith(f"{one['GITSYNC_ROOT']}/{one['GITSYNC_LINK']}/")


@pytest.mark.parametrize("name", WITHIN_THE_CHART)
def test_drop_in_replaces_the_image_and_sets_only_known_variables(name: str) -> None:
    values = files.load(name)
    git_sync = values["dags"]["gitSync"]
    known = git_sync_variables() | names_of(Settings, PREFIX) | {"NODE_NAME"}

    assert {"repository", "tag"} == values["images"]["gitSync"].keys()
    assert git_sync["branch"] == git_sync["ref"], "the chart gives both, and they must agree"
    assert set() == {one["name"] for one in git_sync["env"]} - known
    assert git_sync["emptyDirConfig"]["sizeLimit"]


@pytest.mark.parametrize("name", WITHIN_THE_CHART)
def test_drop_in_meets_restricted_with_a_read_only_root_and_a_tmp_volume(name: str) -> None:
    values = files.load(name)
    git_sync = values["dags"]["gitSync"]
    (mount,) = git_sync["extraVolumeMounts"]
    may = git_sync["securityContexts"]["container"]

    assert may["readOnlyRootFilesystem"] is True
    assert all(restricted_rules({"securityContext": may}, {}).values())
    assert {"mountPath": "/tmp", "name": mount["name"]} == mount
    assert files.named(values["volumes"], mount["name"])["emptyDir"]["sizeLimit"]


def test_codecommit_uses_a_role_instead_of_a_secret() -> None:
    values = files.load("git-sync-wrapper.codecommit.yaml")
    accounts = [values[name]["serviceAccount"] for name in ("dagProcessor", "triggerer")] + [
        values["workers"][name]["serviceAccount"] for name in ("celery", "kubernetes")
    ]

    assert "credentialsSecret" not in values["dags"]["gitSync"]
    assert all("eks.amazonaws.com/role-arn" in one["annotations"] for one in accounts)
    assert {True} == {one["create"] for one in accounts}


@pytest.mark.skipif(not CAN_RENDER, reason=HOW_TO_RENDER)
@pytest.mark.parametrize(
    ("executor", "writers"),
    [
        ("CeleryExecutor", {"dag-processor": ["git-sync"]}),
        (
            "LocalExecutor",
            {"dag-processor": ["git-sync"], "scheduler": ["git-sync-init", "git-sync"]},
        ),
    ],
)
def test_shared_volume_has_the_expected_writers_and_read_only_readers(
    tmp_path: Path, executor: str, writers: dict[str, list[str]]
) -> None:
    """Render the values of the how-to, with each executor."""
    (block,) = re.findall(r"```yaml\n(.*?)```", ONE_VOLUME.read_text(), re.DOTALL)
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump(yaml.safe_load(block) | {"executor": executor}))
    names = ["git-sync-wrapper.chart.yaml", str(values)]
    found: dict[str, list[str]] = {}
    readers = set()
    for pod in pods(render(tmp_path, names)):
        component = pod["metadata"]["labels"]["component"]
        claims = [
            one["persistentVolumeClaim"]
            for one in pod["spec"]["volumes"] or ()
            if one["name"] == "dags"
        ]
        for container in (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]):
            for mount in container.get("volumeMounts", ()):
                if mount["name"] != "dags":
                    continue
                assert [{"claimName": "airflow-dags"}] == claims
                if mount.get("readOnly"):
                    readers.add(component)
                else:
                    found.setdefault(component, []).append(container["name"])
                    env = {one["name"]: one.get("value") for one in container["env"]}
                    assert "2Gi" == env["GIT_SYNC_WRAPPER_RETAIN_BYTES"]

    assert writers == found
    assert {"dag-processor", "triggerer"} <= readers
