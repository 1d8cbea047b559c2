"""
The tutorial for kind: its S3 server, its first release and a change.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from sidecar_values.files import SNIPPETS
from tests.chart.sidecars import Values
from tests.cluster import images
from tests.cluster.kubectl import Namespace, namespace
from tests.cluster.stack import Stack, World, stack

FILES = SNIPPETS / "quickstart"
PORT = 7070
CURRENT = "/opt/airflow/dags/current/hello.py"


@pytest.fixture
def server(world: World, run: str, tmp_path: Path) -> Iterator[tuple[Namespace, list[Values]]]:
    """
    A namespace with the S3 server of `s3.yaml`, and the other objects: the job and its DAG.
    """
    objects = list(yaml.safe_load_all((FILES / "s3.yaml").read_text()))
    started = [one for one in objects if one["kind"] in ("Service", "Deployment")]
    if image := images.provide_s3_server(tmp_path):
        (deployment,) = (one for one in started if one["kind"] == "Deployment")
        deployment["spec"]["template"]["spec"]["containers"][0]["image"] = image
    with namespace(f"quickstart-s3-{run}") as place:
        place.create(started)
        yield place, [one for one in objects if one not in started]


def publish(place: Namespace, objects: list[Values], image: str, endpoint: str, word: str) -> None:
    """
    Run the job of `s3.yaml` with a DAG that prints another word.

    The job uses the pod's address, because the cluster may have neither Services nor DNS.
    """
    text = yaml.safe_dump_all(objects).replace("http://s3:7070", endpoint)
    again = list(yaml.safe_load_all(text.replace("first-dags", f"dags-{word}")))
    (dags,) = (one for one in again if one["kind"] == "ConfigMap")
    for name, dag in dags["data"].items():
        dags["data"][name] = dag.replace('print("hello")', f'print("{word}")')
    (job,) = (one for one in again if one["kind"] == "Job")
    job["metadata"]["name"] = f"publish-{word}"
    job["spec"]["template"]["spec"]["containers"][0]["image"] = image
    place.create(again)
    place.run("wait", "--for=condition=complete", "--timeout=300s", f"job/publish-{word}")


def test_first_release_and_a_change_reach_every_pod_that_reads_dags(
    world: World, run: str, server: tuple[Namespace, list[Values]]
) -> None:
    place, publishing = server
    (pod,) = place.wait_for_ready(1, "app.kubernetes.io/name=s3")
    endpoint = f"http://{pod.manifest['status']['podIP']}:{PORT}"
    image = world.images.name("s3-sync")
    publish(place, publishing, image, endpoint, "hello")
    outside = dataclasses.replace(world, endpoint=endpoint)
    values = ("quickstart/values.yaml",)
    # kind enforces no level; for `restricted`, Airflow itself would need a security context.
    with stack(outside, f"quickstart-{run}", values, level="baseline") as airflow:
        pods = airflow.pods()
        assert {"scheduler", "dag-processor"} == set(pods)
        assert {'print("hello")'} == said(airflow)
        publish(place, publishing, image, endpoint, "again")
        airflow.namespace.wait_until(lambda: {'print("again")'} == said(airflow), "the change")


def said(airflow: Stack) -> set[str]:
    """
    Return what the DAG prints, for all containers that would run it.
    """
    return {
        pod.execute(name, "grep", "-o", "print.*", CURRENT).strip()
        for pods in airflow.pods().values()
        for pod in pods
        for name in ("scheduler", "dag-processor")
        if name in pod.containers
    }
