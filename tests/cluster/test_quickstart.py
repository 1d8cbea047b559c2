"""
The tutorial for kind: its S3 server, its first release and a change.
"""

import dataclasses
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.chart import files
from tests.chart.sidecars import Values
from tests.chart.stacks import QUICKSTART
from tests.cluster import images
from tests.cluster.kubectl import Namespace, namespace
from tests.cluster.stack import YOUR_VALUES, World, stack

CURRENT = "/opt/airflow/dags/current/hello.py"


def publish(
    place: Namespace, objects: list[Values], image: str, endpoint: str, word: str
) -> None:
    """
    Run the job of `s3.yaml` with a DAG that prints another word.

    The job uses the pod's address, because the cluster may have neither Services nor
    DNS.
    """
    text = json.dumps(objects).replace("http://s3:7070", endpoint)
    text = text.replace("s3-keys", f"s3-keys-{word}")
    text = text.replace("first-dags", f"dags-{word}").replace(
        'print(\\"hello', f'print(\\"{word}'
    )
    again = json.loads(text)
    (job,) = (one for one in again if one["kind"] == "Job")
    job["metadata"]["name"] = f"publish-{word}"
    job["spec"]["template"]["spec"]["containers"][0]["image"] = image
    place.create(again)
    place.run(
        "wait", "--for=condition=complete", "--timeout=300s", f"job/publish-{word}"
    )


def test_first_release_and_a_change_reach_every_pod_that_reads_dags(
    world: World, run: str, tmp_path: Path
) -> None:
    objects = files.load_objects("quickstart/s3.yaml")
    server = [one for one in objects if one["kind"] in ("Service", "Deployment")]
    publishing = [one for one in objects if one not in server]
    if os.environ.get(images.S3_SERVER) and not os.environ.get("REGISTRY"):
        (container,) = server[1]["spec"]["template"]["spec"]["containers"]
        container["image"] = images.provide(tmp_path, ("versitygw",)).name("versitygw")
    with namespace(f"quickstart-s3-{run}") as place:
        place.create(server)
        (pod,) = place.wait_for_ready(1, "app.kubernetes.io/name=s3")
        s3: Any = SimpleNamespace(
            endpoint=f"http://{pod.manifest['status']['podIP']}:7070"
        )
        image = world.images.name("s3-sync")
        publish(place, publishing, image, s3.endpoint, "hello")
        values = (YOUR_VALUES, *QUICKSTART, f"sidecars.endpoint={s3.endpoint}")
        with stack(
            dataclasses.replace(world, s3=s3), f"quickstart-{run}", values
        ) as airflow:
            consumers = airflow.consumers()

            def said() -> set[str]:
                return {
                    pod.execute(name, "grep", "-o", "print.*", CURRENT).strip()
                    for pod, name in consumers
                }

            assert ["dag-processor", "scheduler"] == sorted(
                name for _, name in consumers
            )
            airflow.namespace.wait_until(
                lambda: {'print("hello")'} == said(), "the first release"
            )
            publish(place, publishing, image, s3.endpoint, "again")
            airflow.namespace.wait_until(
                lambda: {'print("again")'} == said(), "the change"
            )
