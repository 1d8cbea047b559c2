"""
S3 is down when a pod starts.
"""

from __future__ import annotations

import dataclasses
import os

from tests.chart.stacks import DEV
from tests.cluster.conftest import BUCKETS
from tests.cluster.stack import World, seen_by, stack, upload
from tests.support.aws.servers import MotoServer


def test_a_pod_waits_for_s3_and_becomes_ready_without_a_restart(world: World, run: str) -> None:
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
                if pod.containers and "running" == pod.containers["s3-sync"].state
                for line in pod.log("s3-sync")
            )

        place.namespace.wait_until(failed, "s3-sync has met the outage")
        (pod,) = place.namespace.pods()
        assert "waiting" == pod.containers["dag-processor"].state
        with later:
            (pod,) = place.namespace.wait_for_ready(1)
            assert '{"revision": 3}' == seen_by(pod, "dag-processor")
