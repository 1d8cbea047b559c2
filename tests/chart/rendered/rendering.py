"""
Renders the official chart with `helm template`; needs `helm` and the whole chart.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from tests.chart import files
from tests.chart.rendered import kustomize, printed
from tests.chart.rules import checks
from tests.chart.rules.sidecars import Values

HELM = shutil.which("helm")
CAN_RENDER = HELM is not None and (checks.CHART / "templates").is_dir()
# The chart of users with Airflow 2.8.
OLD_CHART = Path(os.environ.get("OLD_AIRFLOW_CHART") or "/nonexistent").absolute()
HOW_TO_RENDER = (
    "rendering needs helm on PATH, and the whole chart in AIRFLOW_CHART: "
    "helm pull apache-airflow/airflow --version 1.22.0 --untar"
)
# Files of the chart that helm reads but never renders.
DOCUMENTS = {"RELEASE_NOTES.rst", "dockerfiles", "docs", "newsfragments"}
# This subchart is only for trials, and takes most of the rendering time.
WITHOUT_SUBCHART = "postgresql.enabled=false"


def render(
    home: Path,
    names: Sequence[str],
    namespace: str = "airflow",
    chart: Path = checks.CHART,
) -> list[Values]:
    """
    Render a chart with values files, `make values` commands, and settings such as `a=b`.

    Components of Kustomize among the names patch the rendered objects. The release is `airflow`.
    """
    components = [name for name in names if name in kustomize.COMPONENTS]
    arguments = [_argument(home, name) for name in names if name not in components]
    done = subprocess.run(
        [
            str(HELM),
            "template",
            "airflow",
            str(_without_documents(chart, home)),
            f"--namespace={namespace}",
            *arguments,
            f"--set={WITHOUT_SUBCHART}",
        ],
        # Without garbage collection, helm takes half the CPU and 400 MiB.
        env={"PATH": os.environ["PATH"], "HOME": str(home), "GOGC": "off"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert 0 == done.returncode, f"helm: {done.returncode} {done.stderr}"
    if components:
        place = kustomize.written(home, done.stdout, components)
        built, complaints = kustomize.build(place)
        assert built, f"kustomize: {complaints}"
        return built
    # The C loader takes a tenth of the CPU of the Python loader.
    found = yaml.load_all(done.stdout, yaml.CSafeLoader)
    return [manifest for manifest in found if manifest]


def _without_documents(chart: Path, home: Path) -> Path:
    lean = home / f"{chart.name}-without-documents"
    if not lean.exists():
        lean.mkdir()
        for one in chart.iterdir():
            if one.name not in DOCUMENTS:
                (lean / one.name).symlink_to(one)
    return lean


def _argument(home: Path, name: str) -> str:
    if name in printed.ALL or name == kustomize.THE_PAGES:
        path = home / f"{name}.yaml"
        path.write_text(kustomize.VALUES if name == kustomize.THE_PAGES else files.text(name))
        return f"--values={path}"
    return f"--set={name}" if "=" in name else f"--values={files.SNIPPETS / name}"


def pods(manifests: list[Values]) -> Iterator[Values]:
    """
    Yield the pods that objects create, including the template of task pods, with metadata.
    """
    for manifest in manifests:
        if manifest["kind"] in ("Deployment", "StatefulSet", "Job"):
            pod = manifest["spec"]["template"]
            yield {**pod, "spec": {**pod["spec"], "volumes": _volumes(manifest, pod)}}
        template = (manifest.get("data") or {}).get("pod_template_file.yaml")
        if manifest["kind"] == "ConfigMap" and template:
            yield yaml.safe_load(template)


def _volumes(manifest: Values, pod: Values) -> list[Values]:
    """
    Return the volumes of a pod, including the claims that a StatefulSet adds.
    """
    claims = manifest["spec"].get("volumeClaimTemplates") or []
    names = [one["metadata"]["name"] for one in claims]
    added = [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in names]
    return [*(pod["spec"].get("volumes") or []), *added]


def component(pod: Values) -> str:
    """
    Return the component of a pod; Celery workers and task pods have the same label.
    """
    if any(one["name"] == "base" for one in pod["spec"]["containers"]):
        return "task pod"
    name: str = pod["metadata"]["labels"]["component"]
    return name
