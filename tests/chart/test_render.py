"""
What the official chart makes of the snippets; needs `helm` and the whole chart.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart import checks

HELM = shutil.which("helm")
if HELM is None or not (checks.CHART / "templates").is_dir():
    pytest.skip(
        "rendering needs helm on PATH and the whole chart in AIRFLOW_CHART",
        allow_module_level=True,
    )

Manifest = dict[str, Any]


def render(home: Path, executor: str, names: list[str]) -> Iterator[tuple[str, Manifest]]:
    """
    Yield the pod specs that the chart makes, each with the name of its component.
    """
    files = [f"--values={checks.SNIPPETS / name}" for name in names]
    done = subprocess.run(
        [str(HELM), "template", "airflow", str(checks.CHART), f"--set=executor={executor}", *files],
        env={"PATH": os.environ["PATH"], "HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert 0 == done.returncode, done.stderr
    for manifest in filter(None, yaml.safe_load_all(done.stdout)):
        if manifest["kind"] in ("Deployment", "StatefulSet"):
            yield manifest["metadata"]["labels"]["component"], manifest["spec"]["template"]["spec"]
        template = (manifest.get("data") or {}).get("pod_template_file.yaml")
        if manifest["kind"] == "ConfigMap" and template:
            yield "task pod", yaml.safe_load(template)["spec"]


@pytest.mark.parametrize(
    ("executor", "names", "expected"),
    [
        (
            "CeleryExecutor",
            ["s3-sync.extra.yaml"],
            {"dag-processor": "extra", "triggerer": "extra", "worker": "extra"},
        ),
        (
            "CeleryExecutor",
            ["s3-sync.native.yaml"],
            {"dag-processor": "native", "triggerer": "native", "worker": "native"},
        ),
        (
            "KubernetesExecutor",
            ["s3-sync.native.yaml", "s3-sync.init.yaml"],
            {"dag-processor": "native", "triggerer": "native", "task pod": "init"},
        ),
        (
            "KubernetesExecutor",
            ["s3-sync.extra.yaml", "s3-sync.init.yaml"],
            {"dag-processor": "extra", "triggerer": "extra", "task pod": "init"},
        ),
    ],
    ids=["celery extra", "celery native", "kubernetes native", "kubernetes extra"],
)
def test_every_pod_that_reads_dags_gets_the_sidecar(
    tmp_path: Path,
    executor: str,
    names: list[str],
    expected: dict[str, str],
) -> None:
    kinds = {}

    for component, pod in render(tmp_path, executor, names):
        kind = _kind_of_sidecar(pod)
        if kind:
            kinds[component] = kind
            _assert_airflow_reads_what_the_sidecar_writes(pod)

    assert expected == kinds


def _kind_of_sidecar(pod: Manifest) -> str | None:
    if any(container["name"] == "s3-sync" for container in pod["containers"]):
        return "extra"
    for container in pod.get("initContainers") or []:
        if container["name"] == "s3-sync":
            return "native" if container.get("restartPolicy") == "Always" else "init"
    return None


def _assert_airflow_reads_what_the_sidecar_writes(pod: Manifest) -> None:
    names = [volume["name"] for volume in pod["volumes"]]
    airflow = next(container for container in pod["containers"] if container["name"] != "s3-sync")
    mounts = {mount["mountPath"]: mount for mount in airflow["volumeMounts"]}

    assert 1 == names.count("s3-dags")
    assert len(names) == len(set(names))
    assert ("s3-dags", True) == (
        mounts[checks.DAGS_FOLDER]["name"],
        mounts[checks.DAGS_FOLDER]["readOnly"],
    )
