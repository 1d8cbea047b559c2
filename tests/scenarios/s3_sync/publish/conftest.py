"""Fixtures of the publisher's scenarios."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import one_for_all
from tests.scenarios.s3_sync.publish.place import Place
from tests.scenarios.s3_sync.publish.site import Site
from tests.support.airflow.fake_api import FakeAirflow
from tests.support.aws.gateway import Gateway
from tests.support.aws.servers import RgwServer, S3ProxyServer, S3Server, SeaweedServer
from tests.support.aws.writable_s3 import WritableS3

STORES = ("moto", "minio", "versitygw", "seaweedfs", "s3proxy", "rgw")


seaweedfs = one_for_all(SeaweedServer)
s3proxy = one_for_all(S3ProxyServer)
rgw = one_for_all(RgwServer)


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> Any:
    """
    Each real server with conditional writes in turn; all but moto only with `--full`.
    """
    if request.param != "moto":
        request.getfixturevalue("only_in_full")
    return request.getfixturevalue(request.param)


@pytest.fixture
def place(store: S3Server, tmp_path: Path) -> Place:
    """A bucket on each of these servers in turn."""
    return Place(store, tmp_path)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A bucket without releases on the scripted server, and two publishers."""
    with WritableS3() as s3:
        yield Site(s3, tmp_path)


@pytest.fixture
def gated(store: S3Server, tmp_path: Path) -> Iterator[Place]:
    """A bucket on each real server in turn, behind a gateway."""
    with Gateway(store) as gateway:
        yield Place(gateway, tmp_path)


@pytest.fixture
def airflow() -> Iterator[FakeAirflow]:
    """The API of an Airflow that shows what a test sets."""
    with FakeAirflow() as server:
        yield server
