"""
A change of the source, the layout or the environment: no container of Airflow ever
reads an empty or a missing folder, although every pod shares one airflow.cfg.
"""

import copy
import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chart import pods
from tests.chart.rendering import component
from tests.chart.sidecars import Values
from tests.cluster.following import Followed
from tests.cluster.kubectl import Namespace, Pod
from tests.cluster.stack import (
    YOUR_VALUES,
    Stack,
    World,
    objects_of,
    publish,
    revision,
    seen_by,
    stack,
    upload,
)
from tests.support.git.git_server import GitServer

CONTROLLERS = ("Deployment", "StatefulSet")
# One part of the new airflow.cfg that has nothing to do with DAGs.
MARK = "hostname_callable = changed"
CHANGED = "config.core.hostname_callable=changed"
WITH_A_STATEFUL_SET = "workers.celery.persistence.enabled=true"
SECOND = '{"revision": 2}'
OLD_TASKS = {"task", "task-of-old"}
NEW_TASK = "task-of-new"
END = "import os, signal; os.kill(1, signal.SIGTERM)"


@dataclasses.dataclass(frozen=True)
class Source:
    """
    Where the DAGs of a set of values come from.

    Args:
        world: The world in which the values find them.
        deliver: Puts a revision there; before the first one, pods wait.
    """

    values: tuple[str, ...]
    world: World
    deliver: Callable[[int], None]


def source(words: str, world: World, git: GitServer, name: str) -> Source:
    """
    Return a source that is still empty.

    Args:
        words: The words of `make values`.
        name: The name of its bucket or repository.
    """
    world = dataclasses.replace(world, bucket=name, repository=git.url(f"{name}.git"))

    def commit(number: int) -> None:
        git.repository(f"{name}.git").commit(
            {f"dags/{path}": text for path, text in revision(number).items()}
        )

    def write(number: int) -> None:
        if "SOURCE=release" in words:
            publish(world, name, number)
        else:
            upload(world, name, number)

    world.s3.client().create_bucket(Bucket=name)
    values = (
        f"make values {words}",
        f"sidecars.bucket={name}",
        f"sidecars.gitSync.repo={world.repository}",
        YOUR_VALUES,
        WITH_A_STATEFUL_SET,
    )
    return Source(values, world, commit if "SOURCE=git" in words else write)


def readers(place: Namespace) -> list[tuple[Pod, str]]:
    """
    Return the running containers that read DAGs, each with its pod.

    Not the scheduler that only pins task pods: it does not wait for its sidecar.
    """
    return [
        (pod, container["name"])
        for pod in place.pods()
        if "extra" not in pods.kinds(pod.spec).values()
        for container in pod.spec["containers"]
        if "follow" in container.get("command", ())
        and "running" in pod.statuses.get(container["name"], {"state": {}})["state"]
    ]


def restart_with_new_settings(
    place: Namespace, logs: Followed, pod: Pod, container: str
) -> None:
    """
    End Airflow's container until it has been started with the new airflow.cfg, which
    the kubelet brings after up to a minute.
    """

    def has_restarted() -> bool:
        for one, name in readers(place):
            if (one.uid, name) == (pod.uid, container):
                logs.follow(place, one, name)
                inside = ("exec", one.name, f"--container={name}", "--")
                # it may have ended since
                if MARK in place.attempt(*inside, "cat", "/opt/airflow/airflow.cfg"):
                    return True
                place.attempt(*inside, "python3", "-c", END)
        return False

    place.wait_until(has_restarted, f"{pod.name} has the new airflow.cfg")


def has_new_pod_that_waits(place: Namespace, old: set[str]) -> bool:
    """
    Return whether a new DAG processor waits for its first revision.
    """
    return any(
        pod.uid not in old
        and component(pod.manifest) == "dag-processor"
        and not pod.is_ready
        and any("running" in one["state"] for one in pod.statuses.values())
        for pod in place.pods()
    )


def kinds(objects: list[Values]) -> set[str]:
    return {one["kind"] for one in objects}


def task_pod(objects: list[Values], name: str) -> Values:
    """
    Return the pod of a task that starts now, from the template in these objects.
    """
    (pod,) = (copy.deepcopy(one) for one in objects if one["kind"] == "Pod")
    pod["metadata"]["name"] = name
    return pod


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("EXECUTOR=KubernetesExecutor SOURCE=listing", "SOURCE=release GATE=1"),
        ("EXECUTOR=CeleryExecutor SOURCE=git", "SOURCE=listing"),
        ("EXECUTOR=LocalExecutor SOURCE=release", "SOURCE=git"),
    ],
)
def test_no_pod_reads_an_empty_folder_while_the_source_changes(
    before: str, after: str, world: World, run: str, tmp_path: Path
) -> None:
    """
    The new source is empty for long: Airflow's containers in old pods end and start
    again, an old pod is replaced, and tasks start from both templates.
    """
    executor, _, was = before.partition(" ")
    name = f"{was}-{after.split()[0]}-{run}".replace("SOURCE=", "")
    with (
        GitServer(tmp_path / "git", host=os.environ["CLUSTER_HOST"]) as git,
        Followed(tmp_path) as logs,
    ):
        old = source(before, world, git, f"old-{name}")
        new = source(f"{executor} {after}", world, git, f"new-{name}")
        old.deliver(1)
        with stack(old.world, name, old.values) as started:
            place = started.namespace
            started.pods()
            change(started, new, logs)

            new.deliver(2)

            for one in started.objects:
                if one["kind"] in CONTROLLERS:
                    place.run(
                        "rollout",
                        "status",
                        f"{one['kind']}/{one['metadata']['name']}",
                        "--timeout=240s",
                    )
            wanted = {NEW_TASK} if "Pod" in kinds(started.objects) else set()

            def all_see_the_new_source() -> bool:
                found = readers(place)
                for pod, container in found:
                    logs.follow(place, pod, container)
                seen = {pod.name: seen_by(pod, name) for pod, name in found}
                late = {name: seen[name] for name in seen.keys() - OLD_TASKS}
                return wanted <= late.keys() and {SECOND} == {*late.values()}

            place.wait_until(all_see_the_new_source, "every pod sees the new source")
    told = {name: logs.lines(name) for name in logs.names}
    assert {} == {
        name: lines
        for name, lines in told.items()
        if any("flaw" in one for one in lines)
    }
    numbers = [
        one["revision"] for lines in told.values() for one in lines if "revision" in one
    ]
    assert {1, 2} == {*numbers}


def change(started: Stack, new: Source, logs: Followed) -> None:
    """
    Apply the values of the new source, and disturb all pods while it is still empty.
    """
    place = started.namespace
    old = readers(place)
    for pod, container in old:
        logs.follow(place, pod, container)
    known = {pod.uid for pod, _ in old}
    objects = objects_of(new.world, place.name, (*new.values, CHANGED))
    place.apply([one for one in objects if one["kind"] != "Pod"])
    if "Pod" in kinds(objects):
        # by a scheduler of the old template, and by one that has restarted since
        place.create([task_pod(started.objects, "task-of-old")])
        place.create([task_pod(objects, NEW_TASK)])
    place.wait_until(lambda: has_new_pod_that_waits(place, known), "the new pods wait")
    for pod, container in old:
        is_left = pod.uid in {one.uid for one in place.pods()}
        if is_left and container != "base":
            restart_with_new_settings(place, logs, pod, container)
    (drained,) = (pod for pod, container in old if container == "dag-processor")
    place.run("delete", "pod", drained.name)
    place.wait_until(
        lambda: has_successor(place, drained), "the old template has made another pod"
    )
    for pod, container in readers(place):
        logs.follow(place, pod, container)


def has_successor(place: Namespace, drained: Pod) -> bool:
    """
    Return whether a pod from the same template is ready; it has the new airflow.cfg.
    """
    key = "pod-template-hash"
    wanted = drained.manifest["metadata"]["labels"][key]
    return any(
        pod.uid != drained.uid
        and pod.manifest["metadata"]["labels"].get(key) == wanted
        and pod.is_ready
        for pod in place.pods()
    )
