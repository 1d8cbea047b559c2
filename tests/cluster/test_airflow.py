"""
A real Airflow with the KubernetesExecutor: each task runs the code of its run's
release.
"""

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from tests.chart.rendering import render
from tests.cluster import images
from tests.cluster.kubectl import Namespace, Pod, kubectl, namespace
from tests.cluster.stack import World, module
from tests.cluster.substitutions import (
    TASK_POD,
    Site,
    give_the_role,
    lead_to_this_machine,
)
from tests.support.airflow.databases import PASSWORD, USER, Postgres
from tests.support.airflow.runs import DAG_ID, TASKS, Notes, Runs
from tests.support.http.fake_proxy import pump
from tests.support.s3_sync.publishing import EXAMPLES_PREFIX, Publishing, write_files

pytestmark = pytest.mark.timeout(3_600)
PRINTED = "make values AIRFLOW=3 EXECUTOR=KubernetesExecutor SOURCE=release VERSIONS=1"
API_PORT = 8080
BUCKET = "real-airflow"


class Forwarder(ThreadingTCPServer):
    """
    Forwards connections from CLUSTER_HOST, for pods of a cluster without Services.

    Args:
        target: Where it connects to; until it is set, connections are closed.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, target: tuple[str, int] = ("127.0.0.1", 9)) -> None:
        self.target = target
        super().__init__((os.environ["CLUSTER_HOST"], 0), BaseRequestHandler)
        self.port = int(self.server_address[1])

    def finish_request(self, request: Any, _: Any) -> None:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(self.target) as upstream,
        ):
            pump(request, upstream)

    @contextmanager
    def serving(self) -> Iterator["Forwarder"]:
        """
        Forward in a thread during a `with` statement.
        """
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        with self:
            try:
                yield self
            finally:
                self.shutdown()


@dataclass
class Live:
    """
    Airflow in a namespace.

    Args:
        folder: Where the files to publish are written.
        newer: The image of s3-sync under another tag.
    """

    runs: Runs
    place: Namespace
    publisher: Publishing
    folder: Path
    newer: str

    def release(self, mark: str) -> str:
        """
        Publish a release whose every file has one mark; return its version.
        """
        return str(
            self.publisher.succeed(
                "publish",
                write_files(self.folder / "files", self.runs.notes.files_of(mark)),
            )["revision"]
        )

    def publish(self, mark: str) -> str:
        """
        Publish a release, wait until Airflow has parsed it, and return its version.
        """
        version = self.release(mark)
        self.runs.wait_for_version(version)
        self.runs.wait_for_description(mark)
        return version

    def tasks(self) -> list[Pod]:
        return self.place.pods(f"dag_id={DAG_ID}")

    def end(self, run: str, mark: str, version: str) -> None:
        """
        Let a run finish; check that all of its tasks ran one release, and that their
        pods end.
        """
        self.runs.notes.let_go(run)
        assert "success" == self.runs.wait_for(run, "success", "failed"), run
        assert [(task, mark) for task in TASKS] == self.runs.notes.of(run)
        assert version == self.runs.version_of(run)
        self.place.wait_until(
            lambda: {"Succeeded"} == {pod.phase for pod in self.tasks()},
            "its pods have ended",
        )


@pytest.fixture(scope="module")
def airflow(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, run: str
) -> Iterator[Live]:
    """
    An Airflow with DAG versions, whose DAG is not paused.
    """
    if not request.config.getoption("--full"):
        pytest.skip("a real Airflow takes minutes: make test-cluster FULL=1")
    world: World = request.getfixturevalue("world")
    folder = tmp_path_factory.mktemp("airflow")
    host = os.environ["CLUSTER_HOST"]
    image = images.provide(folder, ("airflow",))
    world.s3.client().create_bucket(Bucket=BUCKET)
    server = urlsplit(
        kubectl("config", "view", "--minify", "-ojsonpath={..cluster.server}")
    )
    with ExitStack() as stack:
        api = stack.enter_context(Forwarder().serving())
        kubernetes = stack.enter_context(
            Forwarder((str(server.hostname), server.port or 443)).serving()
        )
        notes = stack.enter_context(Notes(host))
        database = stack.enter_context(Postgres(host)).new_database()
        place = stack.enter_context(namespace(f"airflow-{run}"))
        runs = Runs(f"http://{host}:{api.port}", database, notes)
        publisher = Publishing(
            world.s3, BUCKET, folder / "home", {"KEY_PATH": EXAMPLES_PREFIX}
        )
        found = Live(runs, place, publisher, folder, request.getfixturevalue("newer"))
        first = found.release("start")

        login = {
            "user": USER,
            "pass": PASSWORD,
            "host": host,
            "port": database.server.port,
        }
        reach = {
            "KUBERNETES_SERVICE_HOST": host,
            "KUBERNETES_SERVICE_PORT": str(kubernetes.port),
        }
        of_here = {
            "images": {
                "airflow": {"repository": f"{image.registry}/airflow", "tag": image.tag}
            },
            "data": {"metadataConnection": {**login, "db": database.name}},
            "config": {
                "core": {"execution_api_server_url": f"{runs.endpoint}/execution/"}
            },
            "extraEnv": yaml.safe_dump(
                [{"name": n, "value": v} for n, v in reach.items()]
            ),
        }
        (folder / "of-here.yaml").write_text(yaml.safe_dump(of_here))
        objects = render(
            folder,
            [
                PRINTED,
                str(Path(__file__).with_name("airflow.yaml")),
                str(folder / "of-here.yaml"),
            ],
            place.name,
        )
        (holder,) = (one for one in objects if TASK_POD in (one.get("data") or {}))
        task = yaml.safe_load(holder["data"][TASK_POD])
        for change in (give_the_role, lead_to_this_machine):
            change(
                [*objects, task], Site(world.s3.endpoint, "", world.images.name, BUCKET)
            )
        holder["data"][TASK_POD] = yaml.safe_dump(task)

        place.create([module(), *objects])
        place.run(
            "wait",
            "--for=condition=complete",
            "--timeout=600s",
            "job/airflow-run-airflow-migrations",
        )
        (pod,) = place.wait_for_ready(1, "component=api-server")
        api.target = (str(pod.manifest["status"]["podIP"]), API_PORT)
        runs.wait_for_version(first)
        runs.unpause()
        yield found


def roll_out(airflow: Live) -> None:
    """
    Give the DAG processor's sidecar another image: no other pod is replaced, nothing
    restarts.
    """
    processor = "deployment/airflow-dag-processor"
    place = airflow.place

    def others() -> dict[str, int]:
        found = [pod for pod in place.pods() if pod.phase == "Running"]
        return {
            pod.name: pod.restarts for pod in found if "dag-processor" not in pod.name
        }

    before = others()
    place.run("set", "image", processor, f"s3-sync={airflow.newer}")
    place.run("rollout", "status", processor, "--timeout=240s")
    assert before == others()


def end_its_sidecar(airflow: Live) -> None:
    """
    End s3-sync beside the running task, which the kubelet restarts.
    """
    (pod,) = (pod for pod in airflow.tasks() if pod.phase == "Running")
    pod.execute(
        "s3-sync", "python3", "-c", "import os, signal; os.kill(1, signal.SIGTERM)"
    )


def end_the_scheduler(airflow: Live) -> None:
    airflow.place.run("delete", "pod", "--selector=component=scheduler")


def test_a_run_keeps_its_release_through_publishes_rollouts_kills_a_clear_and_a_rollback(
    airflow: Live,
) -> None:
    versions = [airflow.publish("0")]
    seen = []
    runs = airflow.runs
    disturbances: list[Callable[[Live], None]] = [
        roll_out,
        end_its_sidecar,
        end_the_scheduler,
    ]
    for number, disturb in enumerate(disturbances):
        seen.append(runs.begin())
        disturb(airflow)
        versions.append(airflow.publish(str(number + 1)))
        airflow.end(seen[-1], str(number), versions[number])
    assert len(TASKS) * len(seen) == len(airflow.tasks())

    runs.clear(seen[0], "third")
    airflow.place.wait_until(
        lambda: len(runs.notes.of(seen[0])) == 4, "third ran again"
    )
    assert ("third", "0") == runs.notes.of(seen[0])[-1]

    airflow.publisher.succeed("rollback", versions[1])
    runs.wait_for_version(versions[1])
    airflow.end(runs.begin(), "1", versions[1])
