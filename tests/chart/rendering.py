"""
Renders the official chart with `helm template`; needs `helm` and the whole chart.
"""

import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from tests.chart import files
from tests.chart.sidecars import Values

HELM = shutil.which("helm")
CHART = Path(os.environ.get("AIRFLOW_CHART") or "/nonexistent").absolute()
CAN_RENDER = HELM is not None and (CHART / "templates").is_dir()
HOW_TO_RENDER = (
    "rendering needs helm on PATH, and the whole chart in AIRFLOW_CHART: "
    "helm pull apache-airflow/airflow --version 1.22.0 --untar"
)
# Files of the chart that helm reads but never renders.
DOCUMENTS = {"RELEASE_NOTES.rst", "dockerfiles", "docs", "newsfragments"}
# This subchart is only for trials, and takes most of the rendering time.
WITHOUT_SUBCHART = "postgresql.enabled=false"


def render(
    home: Path, names: Sequence[str], namespace: str = "airflow"
) -> list[Values]:
    """
    Render the chart with values files, `make values` commands, and settings such as
    `a=b`.

    The release is `airflow`.
    """
    done = subprocess.run(
        [
            str(HELM),
            "template",
            "airflow",
            str(_without_documents(home)),
            f"--namespace={namespace}",
            *(_argument(home, name) for name in names),
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
    # The C loader takes a tenth of the CPU of the Python loader.
    return [
        manifest
        for manifest in yaml.load_all(done.stdout, yaml.CSafeLoader)
        if manifest
    ]


@functools.cache
def rendered(names: tuple[str, ...]) -> list[Values]:
    """
    Render once for all tests of this process; callers must not change what they get.
    """
    with tempfile.TemporaryDirectory() as home:
        return render(Path(home), names)


@functools.cache
def rendered_pods(names: tuple[str, ...]) -> list[Values]:
    return list(pods(rendered(names)))


def _without_documents(home: Path) -> Path:
    lean = home / "chart-without-documents"
    if not lean.exists():
        lean.mkdir()
        for one in CHART.iterdir():
            if one.name not in DOCUMENTS:
                (lean / one.name).symlink_to(one)
    return lean


def _argument(home: Path, name: str) -> str:
    if name.startswith("make values"):
        path = home / f"{name.replace(',', '+')}.yaml"  # helm splits at commas
        path.write_text(files.text(name))
        return f"--values={path}"
    return f"--set={name}" if "=" in name else f"--values={files.SNIPPETS / name}"


def pods(manifests: list[Values]) -> Iterator[Values]:
    """
    Yield the pods that objects create, including the template of task pods, with
    metadata.
    """
    for manifest in manifests:
        if manifest["kind"] in ("Deployment", "StatefulSet", "Job"):
            pod = manifest["spec"]["template"]
            yield {**pod, "spec": {**pod["spec"], "volumes": _volumes(manifest, pod)}}
        template = (manifest.get("data") or {}).get("pod_template_file.yaml")
        if manifest["kind"] == "ConfigMap" and template:
            yield yaml.load(template, yaml.CSafeLoader)


def _volumes(manifest: Values, pod: Values) -> list[Values]:
    """
    Return the volumes of a pod, including the claims that a StatefulSet adds.
    """
    names = [
        one["metadata"]["name"]
        for one in manifest["spec"].get("volumeClaimTemplates") or []
    ]
    added = [
        {"name": name, "persistentVolumeClaim": {"claimName": name}} for name in names
    ]
    return [*(pod["spec"].get("volumes") or []), *added]


def component(pod: Values) -> str:
    """
    Return the component of a pod; Celery workers and task pods have the same label.
    """
    if any(one["name"] == "base" for one in pod["spec"]["containers"]):
        return "task pod"
    name: str = pod["metadata"]["labels"]["component"]
    return name
