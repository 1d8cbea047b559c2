"""
The pods of the two complete deployments: they see DAGs and wait for S3.
"""

import dataclasses
import os
from collections.abc import Callable

import pytest

from tests.chart.stacks import DEV
from tests.cluster.conftest import BUCKETS
from tests.cluster.stack import Stack, World, publish, seen_by, stack, upload
from tests.support.aws.servers import MotoServer

READERS = ["base", "dag-processor", "scheduler", "triggerer"]


@pytest.mark.parametrize(("name", "write"), [("dev", upload), ("prd", publish)])
def test_every_consumer_sees_the_dags_and_their_changes_except_running_task_pods(
    name: str,
    write: Callable[[World, str, int], None],
    world: World,
    request: pytest.FixtureRequest,
) -> None:
    place: Stack = request.getfixturevalue(name)
    consumers = place.consumers()
    following = [one for one in consumers if one[1] != "base"]

    assert READERS == sorted({name for _, name in consumers})
    (late,) = (one for one in consumers if one[1] == "scheduler")  # starts without DAGs
    for pod, container in consumers:
        if pod is not late[0]:
            assert '{"revision": 1}' == seen_by(pod, container)
    assert place.namespace.wait_until(
        lambda: '{"revision": 1}' == seen_by(*late), "the scheduler sees revision 1"
    )

    write(world, BUCKETS[name], 2)

    def all_see(number: int) -> bool:
        return {f'{{"revision": {number}}}'} == {seen_by(*one) for one in following}

    assert place.namespace.wait_until(lambda: all_see(2), "every pod sees revision 2")
    (task,) = (one for one in consumers if one[1] == "base")
    assert '{"revision": 1}' == seen_by(*task)


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
