"""
A real Airflow with the KubernetesExecutor: each task runs the code of its run's version.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from s3_sync.release.format import manifest_key
from tests.cluster import images
from tests.cluster.kubectl import Pod
from tests.cluster.live import BUCKET, Live, live
from tests.support.airflow.runs import TASKS
from tests.support.s3_sync.publishing import EXAMPLES_PREFIX

pytestmark = pytest.mark.timeout(3_600)
RUNS = 10


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
    theirs = images.provide_airflow(folder)
    with live(theirs, ours, folder, f"airflow-{run}") as found:
        found.wait_for_version(found.publish("start"))
        found.unpause()
        yield found


def published(airflow: Live, mark: str) -> str:
    """
    Publish a release, wait until Airflow has it, and return its version.
    """
    version = airflow.publish(mark)
    airflow.wait_for_version(version)
    return version


def finish(airflow: Live, run: str) -> list[tuple[str, str]]:
    """
    Let a run finish successfully; return the release that each task ran.
    """
    airflow.notes.let_go(run)
    assert "success" == airflow.wait_for(run, "success", "failed"), run
    return airflow.notes.of(run)


def task_pod(airflow: Live, run: str, task: str, attempt: int = 1) -> Pod:
    """
    Wait for the pod of a task, and return it.
    """

    def found() -> Pod | None:
        pods = airflow.place.pods(f"task_id={task},try_number={attempt}")
        annotated = [
            one for one in pods if one.manifest["metadata"]["annotations"]["run_id"] == run
        ]
        return annotated[0] if annotated else None

    pod = airflow.place.wait_until(found, f"a pod for {task} of {run}")
    assert pod is not None
    return pod


def all_of(mark: str) -> list[tuple[str, str]]:
    """
    Return the notes of a run whose tasks all ran one release.
    """
    return [(task, mark) for task in TASKS]


def test_a_run_keeps_its_version_through_a_publish_a_clear_and_a_rollback(airflow: Live) -> None:
    old = published(airflow, "A")
    run = airflow.begin()
    new = published(airflow, "B")
    assert all_of("A") == finish(airflow, run)
    assert old == airflow.version_of(run)

    following = airflow.begin()
    assert all_of("B") == finish(airflow, following)
    assert new == airflow.version_of(following)

    airflow.clear(run, "third")
    airflow.place.wait_until(lambda: len(airflow.notes.of(run)) == 4, "third ran again")
    assert ("third", "A") == airflow.notes.of(run)[-1]
    assert "success" == airflow.wait_for(run, "success", "failed")

    airflow.publisher.succeed("rollback", old)
    airflow.wait_for_version(old)
    assert all_of("A") == finish(airflow, airflow.begin())


def test_a_deleted_version_fails_the_task_and_its_log_states_why(airflow: Live) -> None:
    old = published(airflow, "pruned")
    run = airflow.begin()
    finish(airflow, run)
    published(airflow, "newer")
    airflow.s3.upstream.client().delete_object(
        Bucket=BUCKET, Key=EXAMPLES_PREFIX + manifest_key(old)
    )

    airflow.clear(run, "third")

    assert "failed" == airflow.wait_for(run, "failed")
    assert all_of("pruned") == airflow.notes.of(run)
    log = task_pod(airflow, run, "third", 2).text("base")
    assert f"version {old} of bundle 'dags' is gone: s3://{BUCKET}" in log


def test_a_task_waits_for_s3_until_its_time_limit(airflow: Live) -> None:
    """
    S3 returns too late for the first attempt, and in time for the second.
    """
    published(airflow, "outage")
    run = airflow.trigger()
    airflow.notes.let_go(run)
    with airflow.without_s3():
        assert "failed" == airflow.wait_for(run, "failed")
        log = task_pod(airflow, run, "first").text("base")
        assert "is not on this volume: " in log and "(waited 60 s)" in log

        airflow.clear(run, *TASKS)
        second = task_pod(airflow, run, "first", 2)
        airflow.place.wait_until(
            lambda: "cycle_failed" in second.text("s3-sync"), "s3-sync has met the outage"
        )

    assert all_of("outage") == finish(airflow, run)


def test_task_pods_end_with_their_tasks(airflow: Live) -> None:
    run = airflow.begin()
    finish(airflow, run)

    pods = [task_pod(airflow, run, task) for task in TASKS]

    def ended() -> bool:
        return {"Succeeded"} == {pod.again().manifest["status"]["phase"] for pod in pods}

    airflow.place.wait_until(ended, "all pods of the run have ended")


def _end_pods(component: str) -> Callable[[Live, str], object]:
    def end(airflow: Live, _: str) -> object:
        return airflow.place.run("delete", "pod", f"--selector=component={component}")

    return end


def _end_sidecar(airflow: Live, run: str) -> object:
    """
    Stop s3-sync beside the running task; the kubelet restarts it.
    """
    end = "import os, signal; os.kill(1, signal.SIGTERM)"
    return task_pod(airflow, run, TASKS[0]).execute("s3-sync", "python3", "-c", end)


# The disruptions during the first task of a run: one per run, in turn.
MEANWHILE: tuple[Callable[[Live, str], object], ...] = (
    lambda *_: None,
    _end_pods("dag-processor"),
    _end_sidecar,
    _end_pods("scheduler"),
)


def test_every_run_uses_one_version_while_pods_restart_and_releases_change(airflow: Live) -> None:
    mark, versions = "0", {"0": published(airflow, "0")}
    for number in range(1, RUNS + 1):
        run = airflow.begin()
        MEANWHILE[number % len(MEANWHILE)](airflow, run)
        if number % 3:
            following = str(number)
            versions[following] = published(airflow, following)
        else:
            following = str(number - 2)
            airflow.publisher.succeed("rollback", versions[following])
            airflow.wait_for_version(versions[following])

        assert all_of(mark) == finish(airflow, run), number
        assert versions[mark] == airflow.version_of(run)
        mark = following
