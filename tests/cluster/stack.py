"""
One deployment of the chart in a namespace, with the objects that users add to it.
"""

import base64
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import botocore
import yaml

from tests import Bodies
from tests.chart.rendering import component, render
from tests.chart.sidecars import WANTED_KEYS, Values
from tests.cluster.images import Images
from tests.cluster.kubectl import Namespace, Pod, namespace
from tests.cluster.substitutions import TASK_POD, Site, substitute
from tests.support.airflow.bundles import MODULE
from tests.support.aws.servers import S3Server
from tests.support.kerberos.kdc import Kdc
from tests.support.revisions import mark
from tests.support.s3_sync.publishing import EXAMPLES_PREFIX, Publishing, write_files
from tests.support.s3_sync.signing import Key

REALM = "EXAMPLE.COM"
PRINCIPAL = "airflow"
YOUR_VALUES = str(Path(__file__).with_name("your-values.yaml"))


@dataclass(frozen=True)
class World:
    """
    The images, servers and keys outside the cluster.

    Args:
        key: Signs releases.
        bucket: Replaces the bucket `my-airflow-bucket` of values files.
        repository: The URL of a git repository with DAGs, if there is one.
    """

    images: Images
    s3: S3Server
    kdc: Kdc
    folder: Path
    key: Key
    bucket: str | None = None
    repository: str | None = None


@dataclass(frozen=True)
class Stack:
    """
    One deployment.

    Args:
        objects: The objects that were created, after the substitutions.
    """

    namespace: Namespace
    objects: list[Values]

    @property
    def workloads(self) -> int:
        """
        The number of pods.
        """
        return sum(_replicas(one) for one in self.objects)

    def pods(self) -> dict[str, list[Pod]]:
        """
        Wait until all pods are ready without a restart; return them by component.
        """
        found: dict[str, list[Pod]] = {}
        for pod in self.namespace.wait_for_ready(self.workloads):
            found.setdefault(component(pod.manifest), []).append(pod)
        return found

    def consumers(self) -> list[tuple[Pod, str]]:
        """
        Return the containers of Airflow that read DAGs, each with its pod.
        """
        return [
            (pod, container["name"])
            for pods in self.pods().values()
            for pod in pods
            for container in pod.spec["containers"]
            if "follow" in container.get("command", ())
        ]


def _replicas(one: Values) -> int:
    if one["kind"] == "Pod":
        return 1
    return (
        int(one["spec"]["replicas"])
        if one["kind"] in ("Deployment", "StatefulSet")
        else 0
    )


def revision(number: int) -> Bodies:
    """
    Return the files of a revision of the DAG folder; each contains the revision's
    number.
    """
    paths = [f"team{count % 3}/dag{count}.py" for count in range(12)]
    return {path: mark(number, len(paths), path) for path in paths}


def upload(world: World, bucket: str, number: int) -> None:
    """
    Upload a revision to a bucket, file by file.
    """
    for path, content in revision(number).items():
        world.s3.client().put_object(Bucket=bucket, Key=f"dags/{path}", Body=content)


def publish(world: World, bucket: str, number: int) -> None:
    """
    Publish a revision as a release.
    """
    folder = write_files(Path(tempfile.mkdtemp(dir=world.folder)), revision(number))
    private = world.key.write_private(world.folder / "sign.pem")
    publishing = Publishing(
        world.s3, bucket, world.folder / "home", {"KEY_PATH": EXAMPLES_PREFIX}
    )
    publishing.succeed("publish", folder, "--sign-key", private)


def of_the_user(world: World) -> Iterator[Values]:
    """
    Yield the Secrets and ConfigMaps that users create before they install the chart.
    """
    contents = {
        "airflow.keytab": (world.folder / "airflow.keytab").read_bytes(),
        ".dockerconfigjson": b'{"auths": {}}',
        "connection": b"postgresql://airflow:secret@db.example.com:5432/airflow",
    }
    for name, keys in WANTED_KEYS.items():
        data = {key: contents.get(key, b"secret") for key in keys}
        kind = (
            {"type": "kubernetes.io/dockerconfigjson"}
            if name == "registry-auth"
            else {}
        )
        yield {
            **_object("Secret", name),
            "data": {
                key: base64.b64encode(value).decode() for key, value in data.items()
            },
            **kind,
        }
    yield {
        **_object("ConfigMap", "airflow-krb5-conf"),
        "data": {"krb5.conf": (world.folder / "krb5.conf").read_text()},
    }
    # Of the tests' S3 server, any keys; of the quickstart's, these.
    yield {
        **_object("Secret", "s3-keys"),
        "stringData": {
            "AWS_ACCESS_KEY_ID": "quickstart",
            "AWS_SECRET_ACCESS_KEY": "quickstart-secret",
        },
    }
    yield {
        **_object("ConfigMap", "s3-ca"),
        "data": {"ca.crt": Path(botocore.__file__).with_name("cacert.pem").read_text()},
    }
    key = world.key.public_pem.decode()
    yield {**_object("ConfigMap", "s3-sync-keys"), "data": {"ci-2026-11.pem": key}}
    yield module()


def module() -> Values:
    """
    Return the ConfigMap with the module of the DAG bundle.
    """
    path = MODULE / "airflow_sidecar_bundle.py"
    return {
        **_object("ConfigMap", "airflow-sidecar-bundle"),
        "data": {path.name: path.read_text()},
    }


def _object(kind: str, name: str) -> Values:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}}


@contextmanager
def stack(
    world: World, name: str, values: tuple[str, ...], only: frozenset[str] | None = None
) -> Iterator[Stack]:
    """
    Install the chart with values files, without waiting until the pods are ready.

    Args:
        name: The namespace.
        values: The values files and settings, in Helm's order.
        only: The components to install; None for all.
    """
    objects = objects_of(world, name, values, only)
    brought = {one["metadata"]["name"] for one in objects}
    given = [
        one for one in of_the_user(world) if one["metadata"]["name"] not in brought
    ]
    with namespace(name) as place:
        place.create([*given, *objects])
        yield Stack(place, objects)


def objects_of(
    world: World, name: str, values: tuple[str, ...], only: frozenset[str] | None = None
) -> list[Values]:
    """
    Return the objects of the chart, after the substitutions, and a task pod.

    Args:
        name, values, only: As in `stack`.
    """
    rendered = render(world.folder, (*world.images.settings(), *values), name)
    for one in list(rendered):
        if TASK_POD in (one.get("data") or {}):
            rendered.append(yaml.safe_load(one["data"][TASK_POD]))
    images = world.images
    site = Site(
        world.s3.endpoint,
        images.name("reader"),
        images.name,
        world.bucket,
        world.repository,
    )
    objects = substitute(rendered, site)
    if only is None:
        return objects
    return [one for one in objects if _component_of(one) in {*only, None}]


def _component_of(one: Values) -> str | None:
    if one["kind"] == "Pod":
        return component(one)
    return component(one["spec"]["template"]) if _replicas(one) else None


def seen_by(pod: Pod, container: str) -> str:
    """
    Return what the reader finds in the DAG folder of a container.
    """
    return pod.execute(container, "python3", "/reader.py", "read").strip()
