"""
The components of charts-snippets/kustomize change what they say, and nothing else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.chart import checks, files, kustomize, pods
from tests.chart.kubernetes import strict_complaints
from tests.chart.rendering import CAN_RENDER, HOW_TO_RENDER, component, render
from tests.chart.rendering import pods as pods_of
from tests.chart.sidecars import CHART_VOLUMES, SIDECARS, Values

FOLDER = files.SNIPPETS / "kustomize"
NAMES = sorted(path.parent.name for path in FOLDER.glob("*/STATUS.yaml"))
EXECUTOR = "executor=KubernetesExecutor"
CHANGED = {
    ("ConfigMap", "airflow-config"),
    ("Deployment", "airflow-dag-processor"),
    ("StatefulSet", "airflow-triggerer"),
}
# What the components change, and the scheduler.
PLACES = {"airflow-scheduler", *(name for _, name in CHANGED)}

needs_kustomize = pytest.mark.skipif(
    not (CAN_RENDER and kustomize.is_there()),
    reason=HOW_TO_RENDER if kustomize.is_there() else kustomize.HOW_TO_BUILD,
)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> list[Values]:
    """
    What the chart makes of the page's values.
    """
    return render(tmp_path_factory.mktemp("rendered"), (EXECUTOR, kustomize.THE_PAGES))


@pytest.fixture
def place(rendered: list[Values], tmp_path: Path) -> Path:
    """
    A folder with everything that the page says, and of the chart what the components change.
    """
    changed = [one for one in rendered if _identity(one) in CHANGED]
    return kustomize.written(tmp_path, yaml.safe_dump_all(changed), kustomize.COMPONENTS)


def test_the_page_names_every_component() -> None:
    found = {str(path.parent.relative_to(FOLDER.parent)) for path in FOLDER.rglob("pod.yaml")}

    assert found == {*kustomize.COMPONENTS}


@pytest.mark.parametrize("name", NAMES)
def test_it_has_the_form_of_the_charts_own_overlays(name: str) -> None:
    status = yaml.safe_load((FOLDER / name / "STATUS.yaml").read_text())

    assert {"status", "chart-version", "last-verified", "verify"} == status.keys()
    assert ("tested", "1.22.0") == (status["status"], status["chart-version"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", status["last-verified"])
    assert {"timeout_seconds", "resources"} == status["verify"].keys()
    for one in status["verify"]["resources"]:
        assert {"kind", "name"} <= one.keys() <= {"kind", "name", "ready", "complete"}
    assert {"README.md", "kustomization.yaml"} <= {one.name for one in (FOLDER / name).iterdir()}


@needs_kustomize
def test_only_pods_that_are_named_are_changed(rendered: list[Values], tmp_path: Path) -> None:
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
def test_a_scheduler_that_may_run_tasks_has_both(
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
def test_both_come_together_in_any_order(rendered: list[Values], tmp_path: Path) -> None:
    text = yaml.safe_dump_all(rendered)
    found = [
        {
            name: pods.kinds(pod["spec"])
            for pod in pods_of(kustomize.build(kustomize.written(tmp_path, text, order))[0])
            if (name := pod["metadata"]["labels"]["component"])
        }
        for order in (kustomize.COMPONENTS, kustomize.COMPONENTS[::-1])
    ]

    assert found[0] == found[1]


@needs_kustomize
@pytest.mark.parametrize("value", ["image", "bucket", "prefix", "principal"])
def test_a_value_that_is_missing_is_named(value: str, place: Path) -> None:
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
def test_task_pods_without_a_place_end_the_build(tmp_path: Path) -> None:
    rendered = render(tmp_path, (EXECUTOR,))

    built, complaints = kustomize.build(
        kustomize.written(tmp_path, yaml.safe_dump_all(rendered), kustomize.COMPONENTS)
    )

    assert [] == built
    assert "spec.initContainers" in complaints


@needs_kustomize
def test_without_a_fault_nothing_is_noticed(place: Path) -> None:
    built, _ = kustomize.build(place)

    assert [] == [*_complaints(built)]


def _identity(one: Values) -> tuple[str, str]:
    return one["kind"], one["metadata"]["name"]


def _said(one: Values) -> str:
    """
    An object without what kustomize writes otherwise: an empty list or map is left out.
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
