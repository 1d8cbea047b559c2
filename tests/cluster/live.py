"""
A real Airflow on the cluster, and the servers outside it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Self
from urllib.parse import urlsplit

import yaml

from tests.chart.rendering import render
from tests.chart.sidecars import Values
from tests.cluster.images import Images
from tests.cluster.kubectl import PATIENCE_SECONDS, Namespace, kubectl, namespace
from tests.cluster.stack import module
from tests.cluster.substitutions import BUCKET, TASK_POD, WITH_AIRFLOW, Site, substitute
from tests.support.airflow.databases import PASSWORD, USER, Database, Postgres
from tests.support.airflow.runs import Notes, Runs
from tests.support.aws.fault_proxy import FaultProxy
from tests.support.aws.servers import MotoServer
from tests.support.http.fake_proxy import pump
from tests.support.s3_sync.publishing import EXAMPLES_PREFIX, Publishing, write_files

PRINTED = "make values AIRFLOW=3 EXECUTOR=KubernetesExecutor SOURCE=release VERSIONS=1"
VALUES = (PRINTED, str(Path(__file__).with_name("airflow.yaml")))
API_PORT = 8080


class Forwarder:
    """
    Forwards connections from CLUSTER_HOST, for pods of a cluster without Services.

    Attributes:
        address: The host and port on which it listens.
        target: Where it connects to; while it is None, connections are closed immediately.
    """

    def __init__(self, target: tuple[str, int] | None = None) -> None:
        self.target = target
        forwarder = self

        class Connection(BaseRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    if forwarder.target is not None:
                        with socket.create_connection(forwarder.target) as upstream:
                            pump(self.request, upstream)

        class Server(ThreadingTCPServer):
            daemon_threads = True
            block_on_close = False
            request_queue_size = 128

        self._server = Server((os.environ["CLUSTER_HOST"], 0), Connection)
        host, port = self._server.server_address[:2]
        self.address = str(host), int(port)
        self.endpoint = "http://{}:{}".format(*self.address)

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@dataclass
class Live:
    """
    Airflow in a namespace.

    Args:
        runs: Its runs.
        place: The namespace.
        s3: The proxy that its pods use as S3; the publisher does not use it.
        folder: Where the files to publish are written.
    """

    runs: Runs
    place: Namespace
    s3: FaultProxy
    publisher: Publishing
    folder: Path

    def publish(self, mark: str) -> str:
        """
        Publish a release whose every file has one mark; return its version.
        """
        files = write_files(self.folder / "files", self.runs.notes.files_of(mark))
        return str(self.publisher.succeed("publish", files)["revision"])


@contextmanager
def live(airflow: str, ours: Images, folder: Path, name: str) -> Iterator[Live]:
    """
    Install Airflow with DAG versions and a first release, and wait until its API server is ready.

    Args:
        airflow: The image of Airflow.
        ours: The image of s3-sync.
        name: The namespace.
    """
    host = os.environ["CLUSTER_HOST"]
    with ExitStack() as stack:
        moto = stack.enter_context(MotoServer())
        moto.client().create_bucket(Bucket=BUCKET)
        s3 = stack.enter_context(FaultProxy(moto, host))
        notes = stack.enter_context(Notes(host))
        database = stack.enter_context(Postgres(host)).new_database()
        api = stack.enter_context(Forwarder())
        kubernetes = stack.enter_context(Forwarder(_kubernetes()))
        publisher = Publishing(moto, BUCKET, folder / "home", {"KEY_PATH": EXAMPLES_PREFIX})
        runs = Runs(api.endpoint, database, notes)
        found = Live(runs, Namespace(name), s3, publisher, folder)
        found.publish("start")
        of_here = folder / "of-here.yaml"
        of_here.write_text(yaml.safe_dump(_of_here(airflow, database, api)))
        rendered = render(folder, [*VALUES, str(of_here)], name)
        (holder,) = (one for one in rendered if TASK_POD in (one.get("data") or {}))
        task = yaml.safe_load(holder["data"][TASK_POD])
        site = Site(s3.endpoint, airflow, ours.name, kubernetes=kubernetes.address)
        substitute([*rendered, task], site, WITH_AIRFLOW)
        holder["data"][TASK_POD] = yaml.safe_dump(task)
        place = stack.enter_context(namespace(name))
        later = [one for one in rendered if one["kind"] in ("Deployment", "StatefulSet")]
        place.create([module(), *(one for one in rendered if one not in later)])
        # Otherwise Airflow in each pod waits for the migration and gives up after a minute.
        done = ("wait", "--for=condition=complete", f"--timeout={PATIENCE_SECONDS}s")
        place.run(*done, "job/airflow-run-airflow-migrations")
        place.create(later)
        (pod,) = place.wait_for_ready(1, "component=api-server")
        api.target = (str(pod.manifest["status"]["podIP"]), API_PORT)
        yield found


def _of_here(image: str, database: Database, api: Forwarder) -> Values:
    """
    Return the values that differ between test runs.
    """
    repository, _, tag = image.rpartition(":")
    server = database.server
    connection = {"user": USER, "pass": PASSWORD, "host": server.host, "port": server.port}
    return {
        "images": {"airflow": {"repository": repository, "tag": tag}},
        "data": {"metadataConnection": {**connection, "db": database.name}},
        "config": {"core": {"execution_api_server_url": f"{api.endpoint}/execution/"}},
    }


def _kubernetes() -> tuple[str, int]:
    """
    Return the address at which this machine reaches the API server of Kubernetes.
    """
    server = "--output=jsonpath={.clusters[0].cluster.server}"
    url = urlsplit(kubectl("config", "view", "--minify", server))
    return str(url.hostname), url.port or 443
