"""
Pods end promptly.
"""

from __future__ import annotations

import json

import pytest

from tests.cluster.kubectl import Pod
from tests.cluster.stack import Stack

GRACE_SECONDS = 10
"""Shorter than the chart's grace periods: 60 for a dag-processor, 600 for a task pod."""
HOLD = "tests.example.com/hold"


def hold(pod: Pod, *finalizers: str) -> None:
    """
    Set the finalizers of a pod, which keep its object after its containers have ended.
    """
    patch = json.dumps({"metadata": {"finalizers": [*finalizers]}})
    pod.namespace.run("patch", "pod", pod.name, "--type=merge", f"--patch={patch}")


@pytest.mark.parametrize("component", ["dag-processor", "triggerer", "api-server", "task pod"])
def test_a_deleted_pod_ends_within_seconds(dev: Stack, component: str) -> None:
    """
    Every container exits on SIGTERM: none is killed, although the grace period is short.
    """
    pod = dev.start_task("deleted") if component == "task pod" else dev.pods()[component][0]
    hold(pod, HOLD)
    try:
        grace = f"--grace-period={GRACE_SECONDS}"
        pod.namespace.run("delete", "pod", pod.name, "--wait=false", grace)

        def ended() -> Pod | None:
            now = pod.again()
            states = {one.state for one in now.containers.values()}
            return now if states == {"terminated"} else None

        last = pod.namespace.wait_until(ended, f"{pod.name} has ended")
        assert last is not None
        assert {0} == {one.exit_code for one in last.containers.values()}, last.story()
    finally:
        hold(pod)


def test_a_task_pod_ends_with_its_task(dev: Stack) -> None:
    pod = dev.start_task("finished")

    pod.execute("base", "sh", "-c", "kill -TERM 1")

    pod.namespace.wait_until(
        lambda: pod.again().manifest["status"]["phase"] == "Succeeded", f"{pod.name} succeeds"
    )
    pod.namespace.run("delete", "pod", pod.name)
