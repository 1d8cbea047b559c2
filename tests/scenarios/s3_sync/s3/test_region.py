"""A bucket in another region than the configured one works, at the cost of one extra request."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from tests.scenarios.s3_sync.conftest import StartDaemon
from tests.support.aws.fake_s3 import (
    ACCESS_KEY,
    SECRET_KEY,
    FakeS3,
    is_list,
)
from tests.support.aws.s3_refusals import Identity
from tests.support.daemon import Settings
from tests.support.http.certificates import self_signed
from tests.support.http.fake_proxy import FakeProxy
from tests.support.s3_sync.scripted import FILES, fill, published

Redirection = Literal["moved", "redirect", "malformed"]
Aws = tuple[FakeS3, FakeProxy, Settings]


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[Aws]:
    """S3 in eu-west-1, behind a proxy, with the host names that AWS uses."""
    kinds = ("s3.dualstack", "s3-fips", "s3-accesspoint", "s3")
    hosts = ["s3.us-east-1", *(f"{kind}.eu-west-1" for kind in kinds)]
    names = [f"{start}{host}.amazonaws.com" for host in hosts for start in ("", "*.")]
    context, bundle = self_signed(tmp_path / "tls", *names)
    with FakeS3(region="eu-west-1", tls=context) as s3, FakeProxy(s3.port) as proxy:
        fill(s3)
        s3.identities = {ACCESS_KEY: Identity(SECRET_KEY)}
        settings: Settings = {
            "AWS_ENDPOINT_URL": None,
            "AWS_CA_BUNDLE": str(bundle),
            "HTTPS_PROXY": proxy.endpoint,
        }
        yield s3, proxy, settings


@pytest.mark.parametrize("answer", ["moved", "redirect", "malformed"], ids=["301", "307", "400"])
def test_reaches_a_bucket_in_another_aws_region_at_its_regional_host(
    aws: Aws,
    start: StartDaemon,
    answer: Redirection,
) -> None:
    s3, proxy, settings = aws
    s3.region_answer = answer
    daemon = start({**settings, "AWS_REGION": "us-east-1"}, s3=s3).until_synced()

    assert published(daemon.target) == FILES
    assert set(proxy.asked) == {
        "dags-bucket.s3.us-east-1.amazonaws.com:443",
        "dags-bucket.s3.eu-west-1.amazonaws.com:443",
    }
    listings = s3.seen(is_list)
    assert listings[-1].headers["host"] == "dags-bucket.s3.eu-west-1.amazonaws.com"
    assert daemon.find_events("cycle_failed") == []
