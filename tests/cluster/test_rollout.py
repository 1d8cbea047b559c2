"""
Pods start and end while releases are published and read.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from tests.chart.stacks import PRD
from tests.cluster.conftest import BUCKETS
from tests.cluster.kubectl import Followed
from tests.cluster.stack import World, publish, seen_by, stack
from tests.conftest import Counts

CONTAINER = "dag-processor"
NAME = f"deployment/airflow-{CONTAINER}"
OFTEN = "sidecars: {s3Sync: {interval: 1s}}"


def test_no_pod_sees_a_broken_file_during_releases_a_rollout_and_a_kill(
    world: World, run: str, counts: Counts, tmp_path: Path
) -> None:
    """
    The forced deletion stands for a lost node: it kills the containers immediately.
    """
    first, last = 10, 10 + counts.overwrites
    publish(world, BUCKETS["prd"], first)
    often = tmp_path / "often.yaml"
    often.write_text(OFTEN)
    values = (*PRD, str(often))
    with (
        stack(world, f"rollout-{run}", values, frozenset({CONTAINER})) as place,
        ExitStack() as following,
    ):
        followed = {}

        def follow() -> list[str]:
            pods = place.pods()[CONTAINER]
            for pod in pods:
                if pod.name not in followed:
                    followed[pod.name] = following.enter_context(Followed(pod, CONTAINER))
            return [pod.name for pod in pods]

        old = follow()
        for number in range(first + 1, last + 1):
            publish(world, BUCKETS["prd"], number)
            if number == first + counts.overwrites // 3:
                place.namespace.run("rollout", "restart", NAME)
                place.namespace.run("rollout", "status", NAME, "--timeout=240s")
                new = follow()
            if number == first + counts.overwrites * 2 // 3:
                gone = ("--grace-period=0", "--force", "--wait=false")
                place.namespace.run("delete", "pod", new[0], *gone)
                follow()
        pods = place.pods()[CONTAINER]
        seen = f'{{"revision": {last}}}'
        place.namespace.wait_until(
            lambda: {seen} == {seen_by(pod, CONTAINER) for pod in pods}, "the last release"
        )
        place.namespace.run("delete", "pod", "--wait=false", *follow())
        lines = {name: log.to_the_end() for name, log in followed.items()}

    assert len(lines) > len(old) + len(new), "there was a pod in place of the killed one"
    assert all({"stopped": True} in lines[name] for name in old), "they were read to their end"
    told = [line for read in lines.values() for line in read]
    assert [] == [line for line in told if "flaw" in line]
    assert counts.overwrites // 3 < len({line["revision"] for line in told if "revision" in line})
