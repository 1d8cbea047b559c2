"""
A real Airflow on the cluster, and the servers outside it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from tests.chart.rendering import render
from tests.chart.sidecars import Values
from tests.cluster.forwarder import Address, Forwarder
from tests.cluster.images import Images
from tests.cluster.kubectl import PATIENCE_SECONDS, Namespace, kubectl, namespace
from tests.cluster.stack import module
from tests.cluster.substitutions import TASK_POD, WITH_AIRFLOW, Site, substitute
from tests.support.airflow.databases import PASSWORD, USER, Database, Postgres
from tests.support.airflow.runs import Notes, Runs
from tests.support.aws.fault_proxy import FaultProxy
from tests.support.aws.servers import MotoServer
from tests.support.s3_sync.publishing import EXAMPLES_PREFIX, Publishing, write_files

BUCKET = "my-airflow-bucket"
"""The bucket's name in the values."""
PRINTED = "make values AIRFLOW=3 EXECUTOR=KubernetesExecutor SOURCE=release VERSIONS=1"
VALUES = (PRINTED, str(Path(__file__).with_name("airflow.yaml")))
API_PORT = 8080


class Live(Runs):
    """
    Airflow in a namespace.

    Args:
        place: The namespace.
        s3: The proxy that its pods use as S3.
        publisher: Publishes releases to S3 without the proxy.
        folder: Where the files to publish are written.
    """

    def __init__(
        self,
        endpoint: str,
        database: Database,
        notes: Notes,
        place: Namespace,
        s3: FaultProxy,
        publisher: Publishing,
        folder: Path,
    ) -> None:
        super().__init__(endpoint, database, notes)
        self.place = place
        self.s3 = s3
        self.publisher = publisher
        self._folder = folder

    def publish(self, mark: str) -> str:
        """
        Publish a release whose every file has one mark; return its version.
        """
        files = write_files(self._folder / "files", self.notes.files_of(mark))
        return str(self.publisher.succeed("publish", files)["revision"])

    @contextmanager
    def without_s3(self) -> Iterator[None]:
        """
        Refuse S3 connections from pods meanwhile; the publisher still reaches S3.
        """
        self.s3.stop()
        try:
            yield
        finally:
            self.s3.start()


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
        place = Namespace(name)
        api = stack.enter_context(Forwarder())
        kubernetes = stack.enter_context(Forwarder(_kubernetes()))
        settings = {"KEY_PATH": EXAMPLES_PREFIX}
        publisher = Publishing(moto, BUCKET, folder / "home", settings)
        found = Live(api.endpoint, database, notes, place, s3, publisher, folder)
        found.publish("start")
        of_here = folder / "of-here.yaml"
        of_here.write_text(yaml.safe_dump(_of_here(airflow, database, api)))
        rendered = render(folder, [*VALUES, str(of_here)], name)
        site = Site(s3.endpoint, airflow, ours.name, kubernetes=kubernetes.address)
        stack.enter_context(namespace(name))
        objects = [module(), *_substituted(rendered, site)]
        later = [one for one in objects if one["kind"] in ("Deployment", "StatefulSet")]
        place.create([one for one in objects if one not in later])
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
    return {
        "images": {"airflow": {"repository": repository, "tag": tag}},
        "data": {
            "metadataConnection": {
                "user": USER,
                "pass": PASSWORD,
                "host": server.host,
                "port": server.port,
                "db": database.name,
            }
        },
        "config": {"core": {"execution_api_server_url": f"{api.endpoint}/execution/"}},
    }


def _substituted(rendered: list[Values], site: Site) -> list[Values]:
    """
    Apply the substitutions, including to the template of task pods.
    """
    (holder,) = (one for one in rendered if TASK_POD in (one.get("data") or {}))
    task = yaml.safe_load(holder["data"][TASK_POD])
    substitute(WITH_AIRFLOW, [*rendered, task], site)
    holder["data"][TASK_POD] = yaml.safe_dump(task)
    return rendered


def _kubernetes() -> Address:
    """
    Return the address at which this machine reaches the API server of Kubernetes.
    """
    server = "--output=jsonpath={.clusters[0].cluster.server}"
    url = urlsplit(kubectl("config", "view", "--minify", server))
    return str(url.hostname), url.port or 443
