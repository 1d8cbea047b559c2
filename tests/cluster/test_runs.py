"""
A real Airflow with the KubernetesExecutor: each task runs the code of its run's version.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster import images
from tests.cluster.kubectl import Pod
from tests.cluster.live import Live, live
from tests.support.airflow.runs import TASKS

pytestmark = pytest.mark.timeout(3_600)


@pytest.fixture(scope="module")
def airflow(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, run: str
) -> Iterator[Live]:
    """
    An Airflow whose DAG is not paused.
    """
    if not request.config.getoption("--full"):
        pytest.skip("a real Airflow takes minutes: make test-cluster FULL=1")
    folder = tmp_path_factory.mktemp("airflow")
    ours = images.provide(folder, ("s3-sync",))
    with live(images.provide_airflow(folder), ours, folder, f"airflow-{run}") as found:
        found.runs.wait_for_version(found.publish("start"))
        found.runs.unpause()
        yield found


def published(airflow: Live, mark: str) -> str:
    """
    Publish a release, wait until Airflow has it, and return its version.
    """
    version = airflow.publish(mark)
    airflow.runs.wait_for_version(version)
    return version


def check(airflow: Live, run: str, mark: str, version: str) -> None:
    """
    Let a run finish, and check that all of its tasks ran one release.
    """
    runs = airflow.runs
    runs.notes.let_go(run)
    assert "success" == runs.wait_for(run, "success", "failed"), run
    assert [(task, mark) for task in TASKS] == runs.notes.of(run)
    assert version == runs.version_of(run)


def task_pod(airflow: Live, run: str, task: str, attempt: int = 1) -> Pod:
    """
    Wait for the pod of a task, and return it.
    """

    def found() -> Pod | None:
        pods = airflow.place.pods(f"task_id={task},try_number={attempt}")
        of_run = [one for one in pods if one.manifest["metadata"]["annotations"]["run_id"] == run]
        return of_run[0] if of_run else None

    pod = airflow.place.wait_until(found, f"a pod for {task} of {run}")
    assert pod is not None
    return pod


def disturb(airflow: Live, run: str, what: str) -> None:
    """
    End a component, or s3-sync beside the running task, which the kubelet restarts.
    """
    if what == "s3-sync":
        end = "import os, signal; os.kill(1, signal.SIGTERM)"
        task_pod(airflow, run, TASKS[0]).execute("s3-sync", "python3", "-c", end)
    elif what:
        airflow.place.run("delete", "pod", f"--selector=component={what}")


def test_runs_keep_their_version_through_publishes_restarts_a_clear_and_a_rollback(
    airflow: Live,
) -> None:
    versions, seen, runs = {"0": published(airflow, "0")}, [], airflow.runs
    for number, what in enumerate(("", "dag-processor", "s3-sync", "scheduler")):
        run, mark = runs.begin(), str(number)
        disturb(airflow, run, what)
        versions[str(number + 1)] = published(airflow, str(number + 1))
        check(airflow, run, mark, versions[mark])
        seen.append(run)
    pods = [task_pod(airflow, seen[0], task) for task in TASKS]

    def ended() -> bool:
        return {"Succeeded"} == {pod.again().manifest["status"]["phase"] for pod in pods}

    airflow.place.wait_until(ended, "all pods of the first run have ended")

    runs.clear(seen[0], "third")
    airflow.place.wait_until(lambda: len(runs.notes.of(seen[0])) == 4, "third ran again")
    assert ("third", "0") == runs.notes.of(seen[0])[-1]

    airflow.publisher.succeed("rollback", versions["2"])
    runs.wait_for_version(versions["2"])
    check(airflow, runs.begin(), "2", versions["2"])


def test_a_task_waits_for_s3_until_its_time_limit(airflow: Live) -> None:
    """
    S3 returns too late for the first attempt, and in time for the second.
    """
    version = published(airflow, "outage")
    run = airflow.runs.trigger()
    airflow.runs.notes.let_go(run)
    airflow.s3.stop()
    try:
        assert "failed" == airflow.runs.wait_for(run, "failed")
        log = task_pod(airflow, run, "first").text("base")
        assert "is not on this volume: " in log and "(waited 60 s)" in log

        airflow.runs.clear(run, *TASKS)
        second = task_pod(airflow, run, "first", 2)
        airflow.place.wait_until(
            lambda: "cycle_failed" in second.text("s3-sync"), "s3-sync has met the outage"
        )
    finally:
        airflow.s3.start()

    check(airflow, run, "outage", version)
