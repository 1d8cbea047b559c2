"""
A rollout, while Airflow reads and releases are published.
"""

from __future__ import annotations

from contextlib import ExitStack

from tests.cluster.conftest import BUCKETS
from tests.cluster.kubectl import Followed
from tests.cluster.stack import Stack, World, publish

NAME = "deployment/airflow-dag-processor"
CONTAINER = "dag-processor"


def test_a_rollout_shows_no_broken_file(prd: Stack, world: World) -> None:
    """
    Every tree that is read is one whole release, in the old pods and the new ones.
    """
    old = prd.pods()[CONTAINER]
    with ExitStack() as following:
        logs = [following.enter_context(Followed(pod, CONTAINER)) for pod in old]
        publish(world, BUCKETS["prd"], 11)
        prd.namespace.run("rollout", "restart", NAME)
        publish(world, BUCKETS["prd"], 12)
        prd.namespace.run("rollout", "status", NAME, "--timeout=240s")
        lines = [line for log in logs for line in log.to_the_end()]
    new = prd.pods()[CONTAINER]
    prd.namespace.wait_until(
        lambda: all({"revision": 12} in pod.log(CONTAINER) for pod in new), "release 12 is shown"
    )

    assert {pod.name for pod in old}.isdisjoint({pod.name for pod in new})
    assert {"stopped": True} in lines, "the old pod was read to its end"
    lines += [line for pod in new for line in pod.log(CONTAINER)]
    assert [] == [line for line in lines if "flaw" in line]
