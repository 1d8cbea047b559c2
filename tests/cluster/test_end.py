"""
Pods end when they should, and soon.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import pytest

from tests.cluster.kubectl import Pod
from tests.cluster.stack import Stack

HOLD = "tests.example.com/hold"


def hold(pod: Pod, *finalizers: str) -> None:
    """
    Keep the object of a pod when its containers have ended, to see how they did.
    """
    patch = json.dumps({"metadata": {"finalizers": [*finalizers]}})
    pod.namespace.run("patch", "pod", pod.name, "--type=merge", f"--patch={patch}")


@pytest.mark.parametrize("component", ["dag-processor", "triggerer", "api-server", "task pod"])
def test_a_deleted_pod_ends_within_seconds(dev: Stack, component: str) -> None:
    """
    Each container heeds SIGTERM: none is killed when the time of grace is over.
    """
    pod = dev.start_task("deleted") if component == "task pod" else dev.pods()[component][0]
    hold(pod, HOLD)
    try:
        pod.namespace.run("delete", "pod", pod.name, "--wait=false")

        def ended() -> Pod | None:
            now = pod.again()
            states = {one.state for one in now.containers.values()}
            return now if states == {"terminated"} else None

        last = pod.namespace.wait_until(ended, f"{pod.name} has ended")
        assert last is not None
        assert {0} == {one.exit_code for one in last.containers.values()}, last.story()
        grace = timedelta(seconds=last.manifest["metadata"]["deletionGracePeriodSeconds"])
        killed_at = datetime.fromisoformat(last.manifest["metadata"]["deletionTimestamp"])
        ends = [one.status["state"]["terminated"] for one in last.containers.values()]
        ended_at = max(datetime.fromisoformat(one["finishedAt"]) for one in ends)
        assert killed_at - ended_at > grace / 2
    finally:
        hold(pod)


def test_a_task_pod_ends_with_its_task(dev: Stack) -> None:
    """
    The sidecar that runs beside the task does not keep the pod.
    """
    pod = dev.start_task("finished")

    pod.execute("base", "sh", "-c", "kill -TERM 1")

    pod.namespace.wait_until(
        lambda: pod.again().manifest["status"]["phase"] == "Succeeded", f"{pod.name} succeeds"
    )
    pod.namespace.run("delete", "pod", pod.name)
