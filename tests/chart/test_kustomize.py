"""
The components of charts-snippets/kustomize change only the intended objects.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.chart import files
from tests.chart.rendered import kustomize
from tests.chart.rendered.rendering import CAN_RENDER, HOW_TO_RENDER, component, render
from tests.chart.rendered.rendering import pods as pods_of
from tests.chart.rules import checks, pods
from tests.chart.rules.kubernetes import strict_complaints
from tests.chart.rules.sidecars import CHART_VOLUMES, SIDECARS, Values

FOLDER = files.SNIPPETS / "kustomize"
NAMES = sorted(path.parent.name for path in FOLDER.glob("*/STATUS.yaml"))
EXECUTOR = "executor=KubernetesExecutor"
# Adds a ConfigMap whose name also ends in -config.
WEBSERVER = "apiServer.apiServerConfig=AUTH_TYPE"
CHANGED = {
    ("ConfigMap", "airflow-config"),
    ("Deployment", "airflow-dag-processor"),
    ("StatefulSet", "airflow-triggerer"),
}
# The objects that the components change, and the scheduler.
PLACES = {"airflow-scheduler", *(name for _, name in CHANGED)}

needs_kustomize = pytest.mark.skipif(
    not (CAN_RENDER and kustomize.is_there()),
    reason=HOW_TO_RENDER if kustomize.is_there() else kustomize.HOW_TO_BUILD,
)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> list[Values]:
    """
    The chart rendered with the page's values.
    """
    return render(tmp_path_factory.mktemp("rendered"), (EXECUTOR, WEBSERVER, kustomize.THE_PAGES))


@pytest.fixture
def place(rendered: list[Values], tmp_path: Path) -> Path:
    """
    A folder with the files of the page, and the chart's objects that the components change.
    """
    changed = [one for one in rendered if _identity(one) in CHANGED]
    return kustomize.written(tmp_path, yaml.safe_dump_all(changed), kustomize.COMPONENTS)


def test_page_lists_every_component() -> None:
    found = {str(path.parent.relative_to(FOLDER.parent)) for path in FOLDER.rglob("pod.yaml")}

    assert found == {*kustomize.COMPONENTS}


@pytest.mark.parametrize("name", NAMES)
def test_component_has_the_layout_of_the_charts_own_overlays(name: str) -> None:
    status = yaml.safe_load((FOLDER / name / "STATUS.yaml").read_text())

    assert {"status", "chart-version", "last-verified", "verify"} == status.keys()
    assert ("tested", "1.22.0") == (status["status"], status["chart-version"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", status["last-verified"])
    assert {"timeout_seconds", "resources"} == status["verify"].keys()
    for one in status["verify"]["resources"]:
        assert {"kind", "name"} <= one.keys() <= {"kind", "name", "ready", "complete"}
    assert {"README.md", "kustomization.yaml"} <= {one.name for one in (FOLDER / name).iterdir()}


@needs_kustomize
@pytest.mark.parametrize("version", ["2.11.0", "3.2.2"])
def test_rendering_again_changes_no_secret(version: str, tmp_path: Path) -> None:
    first, second = (
        [one for one in render(tmp_path, names) if one["kind"] == "Secret"]
        for names in [(f"airflowVersion={version}", kustomize.THE_PAGES)] * 2
    )

    assert first == second


@needs_kustomize
def test_components_change_only_intended_objects(rendered: list[Values], tmp_path: Path) -> None:
    text = yaml.safe_dump_all(rendered)
    built, complaints = kustomize.build(kustomize.written(tmp_path, text, kustomize.COMPONENTS))
    before, after = ({_identity(one): one for one in many} for many in (rendered, built))

    assert "" == complaints
    assert {"s3-sync", "kerberos", "airflow-krb5-conf"} == {
        name for _, name in after.keys() - before.keys()
    }
    assert set() == before.keys() - after.keys()
    assert CHANGED == {key for key, one in before.items() if _said(one) != _said(after[key])}
    (old, new) = (many["ConfigMap", "airflow-config"]["data"] for many in (before, after))
    assert {"pod_template_file.yaml"} == {key for key in old if old[key] != new[key]}


@needs_kustomize
@pytest.mark.parametrize(
    ("executor", "has_it"),
    [
        ("LocalExecutor", True),
        ("LocalExecutor\\,KubernetesExecutor", True),
        ("our.MadeExecutor", True),
        ("CeleryExecutor\\,KubernetesExecutor", False),
    ],
)
def test_scheduler_gets_both_sidecars_only_if_it_can_run_tasks(
    executor: str, has_it: bool, tmp_path: Path
) -> None:
    rendered = render(tmp_path, (f"executor={executor}", kustomize.THE_PAGES))
    text = yaml.safe_dump_all([one for one in rendered if _identity(one)[1] in PLACES])
    components = [one for one in kustomize.COMPONENTS if not one.endswith("/task-pods")]
    built, complaints = kustomize.build(kustomize.written(tmp_path, text, components))

    (scheduler,) = (pod for pod in pods_of(built) if component(pod) == "scheduler")
    assert "" == complaints
    assert ({"s3-sync", "kerberos"} if has_it else set()) == {*pods.kinds(scheduler["spec"])}


@needs_kustomize
def test_component_order_does_not_affect_sidecars(rendered: list[Values], tmp_path: Path) -> None:
    text = yaml.safe_dump_all(rendered)
    found = []
    for order in (kustomize.COMPONENTS, kustomize.COMPONENTS[::-1]):
        built, complaints = kustomize.build(kustomize.written(tmp_path, text, order))
        assert "" == complaints
        found.append({component(pod): pods.kinds(pod["spec"]) for pod in pods_of(built)})

    assert found[0] == found[1]


@needs_kustomize
@pytest.mark.parametrize("value", ["image", "bucket", "prefix", "principal"])
def test_build_fails_and_reports_a_missing_value(value: str, place: Path) -> None:
    path = place / "kustomization.yaml"
    said = yaml.safe_load(path.read_text())
    for one in said["configMapGenerator"]:
        literals = one.get("literals", [])
        one["literals"] = [text for text in literals if not text.startswith(f"{value}=")]
    path.write_text(yaml.safe_dump(said))

    built, complaints = kustomize.build(place)

    assert [] == built
    assert f"data.{value}" in complaints


@needs_kustomize
def test_build_fails_if_task_pods_have_no_init_containers_to_replace(tmp_path: Path) -> None:
    rendered = render(tmp_path, (EXECUTOR,))

    built, complaints = kustomize.build(
        kustomize.written(tmp_path, yaml.safe_dump_all(rendered), kustomize.COMPONENTS)
    )

    assert [] == built
    assert "spec.initContainers" in complaints


@needs_kustomize
def test_built_objects_pass_every_check(place: Path) -> None:
    built, complaints = kustomize.build(place)

    assert "" == complaints
    assert [] == [*_complaints(built)]


def _identity(one: Values) -> tuple[str, str]:
    return one["kind"], one["metadata"]["name"]


def _said(one: Values) -> str:
    """
    Return an object as JSON without its empty values, which kustomize writes differently.
    """

    def kept(node: object) -> object:
        if isinstance(node, dict):
            return {key: kept(value) for key, value in node.items() if value not in (None, {}, [])}
        return [kept(value) for value in node] if isinstance(node, list) else node

    return json.dumps(kept(one), sort_keys=True)


def _complaints(objects: list[Values]) -> Iterator[str]:
    for pod in pods_of(objects):
        spec = pod["spec"]
        ours = pods.kinds(spec)
        if not ours:
            continue
        yield from strict_complaints({"apiVersion": "v1", "kind": "Pod", **pod})
        yield from pods.volume_complaints(spec)
        yield from pods.keytab_complaints(spec)
        containers = [one for one in spec["initContainers"] if one["name"] in ours]
        (airflow,) = (one for one in spec["containers"] if one["name"] in (component(pod), "base"))
        values = {
            "extraInitContainers": containers,
            "extraVolumes": [one for one in spec["volumes"] if _is_added(one)],
            "extraVolumeMounts": [one for one in airflow["volumeMounts"] if _is_added(one)],
            "env": airflow["env"],
        }
        for container in containers:
            yield from SIDECARS[container["name"]].volume_complaints(values, container)
        for check in (
            checks.environment_complaints,
            checks.probe_complaints,
            checks.one_shot_complaints,
            checks.security_complaints,
        ):
            yield from check({"pod": {"extraInitContainers": containers}})


def _is_added(volume: Values) -> bool:
    return volume["name"] not in CHART_VOLUMES
