"""
The pods of the two complete deployments wait for S3, and follow a rollout.
"""

import dataclasses
import os
from pathlib import Path

from tests.chart.stacks import DEV, PRD
from tests.cluster.conftest import BUCKETS
from tests.cluster.following import Followed
from tests.cluster.stack import World, publish, seen_by, stack, upload
from tests.support.aws.servers import MotoServer


def test_a_pod_waits_for_s3_and_becomes_ready_without_a_restart(
    world: World, run: str
) -> None:
    upload(world, BUCKETS["dev"], 3)
    later = MotoServer(os.environ["CLUSTER_HOST"])
    later.start()
    later.stop()
    outside = dataclasses.replace(world, s3=later)
    with stack(outside, f"outage-{run}", DEV, frozenset({"dag-processor"})) as place:

        def failed() -> bool:
            return any(
                line["event"] == "cycle_failed"
                for pod in place.namespace.pods()
                if "running" in pod.statuses.get("s3-sync", {"state": {}})["state"]
                for line in pod.log("s3-sync")
            )

        place.namespace.wait_until(failed, "s3-sync has met the outage")
        (pod,) = place.namespace.pods()
        assert "waiting" in pod.statuses["dag-processor"]["state"]
        with later:
            (pod,) = place.namespace.wait_for_ready(1)
            assert '{"revision": 3}' == seen_by(pod, "dag-processor")


def test_no_pod_sees_a_broken_file_during_releases_a_rollout_and_a_kill(
    world: World, run: str, newer: str, tmp_path: Path
) -> None:
    """
    The forced deletion stands for a lost node: it kills the containers immediately.
    """
    often = tmp_path / "often.yaml"
    often.write_text("sidecars: {s3Sync: {interval: 1s}}")
    publish(world, BUCKETS["prd"], 10)
    only = frozenset({"dag-processor", "task pod"})
    with (
        Followed(tmp_path) as logs,
        stack(world, f"rollout-{run}", (*PRD, str(often)), only) as place,
    ):

        def follow() -> list[str]:
            return [
                logs.follow(place.namespace, pod, "dag-processor")
                for pod in place.pods()["dag-processor"]
            ]

        old = follow()
        tasks = [pod.name for pod in place.pods()["task pod"]]
        for number in range(11, 35):
            publish(world, BUCKETS["prd"], number)
            if number == 18:
                name = "deployment/airflow-dag-processor"
                place.namespace.run("set", "image", name, f"s3-sync={newer}")
                place.namespace.run("rollout", "status", name, "--timeout=240s")
                new = follow()
            if number == 26:
                place.namespace.run(
                    "delete",
                    "pod",
                    new[0].split()[0],
                    "--grace-period=0",
                    "--force",
                    "--wait=false",
                )
                follow()
        pods = place.pods()
        place.namespace.wait_until(
            lambda: (
                {'{"revision": 34}'}
                == {seen_by(p, "dag-processor") for p in pods["dag-processor"]}
            ),
            "the last release",
        )
        assert tasks == [pod.name for pod in pods["task pod"]]

    told = {name: logs.lines(name) for name in logs.names}
    assert len(told) > len(old) + len(new), "there was a pod in place of the killed one"
    assert all({"stopped": True} == told[name][-1] for name in old), (
        "they were read to their end"
    )
    lines = [line for found in told.values() for line in found]
    assert [] == [line for line in lines if "flaw" in line]
    assert 8 < len({line["revision"] for line in lines if "revision" in line})
