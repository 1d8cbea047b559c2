"""
Fixtures: the images, and the servers outside the cluster.
"""

import dataclasses
import os
import shutil
import uuid
from collections.abc import Iterator

import pytest

from tests.chart import rendering
from tests.cluster import images
from tests.cluster.kubectl import kubectl
from tests.cluster.stack import PRINCIPAL, REALM, World, publish, revision, upload
from tests.support.aws.servers import MotoServer
from tests.support.git.git_server import GitServer
from tests.support.kerberos import kdc as realm
from tests.support.kerberos.kdc import Kdc
from tests.support.s3_sync.signing import Key

BUCKETS = {"dev": "my-airflow-bucket-dev", "prd": "my-airflow-bucket-prd"}
NAMES = ("git-sync-wrapper", "s3-sync", "kerberos", "sync-perm", "reader")
SERVICE = "HTTP/consumer"
NEEDED = {
    "KUBECONFIG": "selects a cluster (kind, EKS or any other)",
    "CLUSTER_HOST": "is the address at which pods reach this machine",
}


def missing() -> str:
    """
    Return what is missing for tests on a cluster, in one line; empty if nothing is
    missing.
    """
    names = [
        f"{name}, which {what}"
        for name, what in NEEDED.items()
        if name not in os.environ
    ]
    if not os.environ.get("LOAD_IMAGE") and not os.environ.get("REGISTRY"):
        names.append(
            "LOAD_IMAGE, a command that loads an image archive into the cluster, or REGISTRY"
        )
    names += [name for name in ("kubectl",) if shutil.which(name) is None]
    names += [] if rendering.CAN_RENDER else [rendering.HOW_TO_RENDER]
    names += realm.MISSING
    return f"make test-cluster needs {'; '.join(names)}" if names else ""


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """
    Images, S3 and a KDC; without a cluster the test run ends.
    """
    if lacks := missing():
        pytest.exit(lacks, returncode=2)
    folder = tmp_path_factory.mktemp("world")
    kubectl("get", "nodes")
    host = os.environ["CLUSTER_HOST"]
    with MotoServer(host) as s3, Kdc(folder / "kdc", REALM, host=host) as kdc:
        kdc.write_keytab(
            folder / "airflow.keytab", kdc.add_principal(PRINCIPAL).split("@")[0]
        )
        kdc.add_principal(SERVICE)
        kdc.client_config(folder / "krb5.conf")
        for bucket in BUCKETS.values():
            s3.client().create_bucket(Bucket=bucket)
        yield World(images.provide(folder, NAMES), s3, kdc, folder, Key())


@pytest.fixture(scope="session")
def run() -> str:
    """
    A random word in the names of all namespaces of this run.
    """
    return uuid.uuid4().hex[:6]


@pytest.fixture(scope="session")
def newer(world: World, tmp_path_factory: pytest.TempPathFactory) -> str:
    """
    The image of s3-sync under another tag, for a rollout.
    """
    return images.provide(tmp_path_factory.mktemp("newer"), ("s3-sync",), "newer").name(
        "s3-sync"
    )


@pytest.fixture(scope="session")
def outside(
    world: World, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[bool, World]]:
    """
    The world with revision 1 in git and in a bucket, by whether the bucket contains
    releases.
    """
    with GitServer(
        tmp_path_factory.mktemp("git"), host=os.environ["CLUSTER_HOST"]
    ) as git:
        git.repository().commit(
            {f"dags/{path}": text for path, text in revision(1).items()}
        )
        found = {}
        for has_releases, write in ((False, upload), (True, publish)):
            bucket = f"files-{write.__name__}"
            world.s3.client().create_bucket(Bucket=bucket)
            write(world, bucket, 1)
            found[has_releases] = dataclasses.replace(
                world, bucket=bucket, repository=git.url()
            )
        # The buckets of values-dev.yaml and values-prd.yaml.
        upload(world, BUCKETS["dev"], 1)
        publish(world, BUCKETS["prd"], 1)
        yield found
