"""
Every snippet pastes as it is; and every check catches what it is for.
"""

from __future__ import annotations

import copy
import re

import pytest

from tests.chart import checks, files
from tests.chart.files import ELSEWHERE, FILES, OBJECTS, PATCHES, SNIPPETS, VALUES
from tests.chart.mutations import Mutation, container, dag_processor, rename


@pytest.mark.parametrize("name", FILES)
def test_values_are_sound_for_kubernetes_and_for_the_sidecars(name: str) -> None:
    for values in files.stacks(name, files.load(name)):
        assert [] == checks.complaints(values)


@pytest.mark.parametrize("name", [*VALUES, *OBJECTS, *PATCHES])
def test_file_opens_with_three_lines_of_comment(name: str) -> None:
    first, second, third, fourth = files.text(name).splitlines()[:4]

    assert first.startswith("# For: ")
    assert re.match(r"# Official chart 1\.22\.0, (any )?Airflow\b", second)
    assert third.startswith("# Change: ")
    assert not fourth.startswith("#")


def test_every_file_is_checked() -> None:
    names = {str(path.relative_to(SNIPPETS)) for path in SNIPPETS.rglob("*.y*ml")}

    assert {*FILES, *OBJECTS, *PATCHES} == {
        name for name in names if name.partition("/")[0] not in ELSEWHERE
    }


def test_no_resident_sidecar_is_an_ordinary_container_of_a_task_pod() -> None:
    for name in VALUES:
        task_pod = files.load(name).get("workers", {}).get("kubernetes", {})

        assert "extraContainers" not in task_pod


MUTATIONS: dict[str, Mutation] = {
    "a container's key misspelled": lambda v: rename(container(v), "resources", "resource"),
    "a probe's key misspelled": lambda v: rename(
        container(v)["livenessProbe"], "periodSeconds", "period"
    ),
    "a port that is text": lambda v: container(v)["ports"][0].update(containerPort="9811"),
    "another port": lambda v: container(v)["ports"][0].update(containerPort=8080),
    "a port by a name that nobody gave": lambda v: container(v)["livenessProbe"]["httpGet"].update(
        port="http"
    ),
    "liveness asks for readiness": lambda v: container(v)["livenessProbe"]["httpGet"].update(
        path="/readyz"
    ),
    "readiness is asked": lambda v: container(v).update(
        readinessProbe=container(v)["livenessProbe"]
    ),
    "no startup probe": lambda v: container(v).pop("startupProbe"),
    "a variable misspelled": lambda v: container(v)["env"].append(
        {"name": "S3_SYNC_LAYUOT", "value": "x"}
    ),
    "a number for a variable": lambda v: container(v)["env"][-1].update(value=10),
    "no bucket": lambda v: container(v)["env"].pop(0),
    "a daemon that ends": lambda v: container(v)["env"].append(
        {"name": "S3_SYNC_ONE_SHOT", "value": "true"}
    ),
    "no seccomp profile": lambda v: container(v)["securityContext"].pop("seccompProfile"),
    "a root that can be written": lambda v: container(v)["securityContext"].update(
        readOnlyRootFilesystem=False
    ),
    "no memory limit": lambda v: container(v)["resources"]["limits"].pop("memory"),
    "no image tag": lambda v: container(v).update(image="registry.example.com:5000/s3-sync"),
    "no size limit": lambda v: dag_processor(v)["extraVolumes"][0]["emptyDir"].pop("sizeLimit"),
    "a volume called dags": lambda v: dag_processor(v)["extraVolumes"][0].update(name="dags"),
    "Airflow may write": lambda v: dag_processor(v)["extraVolumeMounts"][0].pop("readOnly"),
    "another folder": lambda v: container(v)["volumeMounts"][0].update(mountPath="/dags"),
}


@pytest.mark.parametrize("mutation", MUTATIONS.values(), ids=MUTATIONS.keys())
@pytest.mark.parametrize("name", ["s3-sync.extra.yaml", "s3-sync.native.yaml"])
def test_mutation_is_caught(name: str, mutation: Mutation) -> None:
    values = copy.deepcopy(files.load(name))
    mutation(values)

    assert checks.complaints(values)


def test_native_sidecar_without_restart_policy_is_caught() -> None:
    values = files.load("s3-sync.native.yaml")
    container(values).pop("restartPolicy")

    assert checks.one_shot_complaints(values)
