"""A bucket in another region than the configured one works, and costs one request more."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from tests.scenarios.s3_sync.conftest import StartDaemon
from tests.support.certificates import self_signed
from tests.support.daemon import Settings
from tests.support.fake_proxy import FakeProxy
from tests.support.fake_s3 import (
    ACCESS_KEY,
    SECRET_KEY,
    FakeS3,
    error,
    is_list,
)
from tests.support.s3_refusals import Identity, signed_region
from tests.support.scripted import FILES, fill, published

Redirection = Literal["moved", "redirect", "malformed"]
Aws = tuple[FakeS3, FakeProxy, Settings]


@pytest.mark.parametrize(
    ("answer", "header"),
    [("moved", True), ("redirect", True), ("malformed", True), ("malformed", False)],
    ids=["301", "307", "400", "400 with the region in the document only"],
)
def test_signs_for_the_region_that_s3_names(
    s3: FakeS3, start: StartDaemon, answer: Redirection, header: bool
) -> None:
    s3.identities = {ACCESS_KEY: Identity(SECRET_KEY)}
    s3.region, s3.region_answer, s3.region_header = "eu-west-1", answer, header
    daemon = start({"AWS_DEFAULT_REGION": "us-east-1", "AWS_REGION": "us-east-1"}).until_synced()
    assert daemon.sync()["event"] == "cycle_finished"

    assert published(daemon.target) == FILES
    regions = [signed_region(request) for request in s3.requests]
    assert regions[0] == "us-east-1"
    assert set(regions[1:]) == {"eu-west-1"}
    assert daemon.find_events("cycle_failed") == []


def test_a_configured_region_that_is_no_name_is_named(s3: FakeS3, start: StartDaemon) -> None:
    failed = start({"AWS_REGION": "evil.example/"}).wait_for_event("cycle_failed")

    assert failed["reason"] == "region_invalid"
    assert s3.requests == []


@pytest.mark.parametrize("name", ["AWS_REGION", "AWS_DEFAULT_REGION", None])
def test_the_region_comes_from_either_name_or_none(
    s3: FakeS3, start: StartDaemon, name: str | None
) -> None:
    settings: Settings = {"AWS_DEFAULT_REGION": None}
    if name is not None:
        settings[name] = "eu-central-1"
    start(settings).wait_until_synced()

    expected = "eu-central-1" if name else "us-east-1"
    assert {signed_region(request) for request in s3.requests} == {expected}


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[Aws]:
    """S3 in eu-west-1 under the names that it has at AWS, behind a proxy."""
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


def test_the_real_host_names_of_aws(aws: Aws, target: Path, start: StartDaemon) -> None:
    s3, proxy, settings = aws
    start(settings, s3=s3).wait_until_synced()

    assert published(target) == FILES
    assert set(proxy.asked) == {"dags-bucket.s3.eu-west-1.amazonaws.com:443"}


@pytest.mark.parametrize("answer", ["moved", "redirect", "malformed"])
def test_another_region_of_aws_is_reached_at_its_own_host(
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


def test_an_access_point(aws: Aws, target: Path, start: StartDaemon) -> None:
    s3, proxy, settings = aws
    s3.bucket = "dags-123456789012"
    arn = "arn:aws:s3:eu-west-1:123456789012:accesspoint/dags"
    daemon = start(settings | {"AWS_BUCKET": arn, "AWS_REGION": "us-east-1"}, s3=s3).until_synced()

    assert published(target) == FILES
    assert set(proxy.asked) == {"dags-123456789012.s3-accesspoint.eu-west-1.amazonaws.com:443"}
    s3.inject(error(403, "AccessDenied", "Access Denied"), is_list)
    assert arn in daemon.sync()["error"]


def test_a_proxy_that_is_down_is_named(aws: Aws, start: StartDaemon) -> None:
    s3, _, settings = aws
    daemon = start(settings | {"HTTPS_PROXY": "http://user:pass-word@127.0.0.1:1"}, s3=s3)

    failed = daemon.wait_for_event("cycle_failed")

    assert failed["reason"] in ("endpoint_unreachable", "proxy_refused")
    assert "proxy" in failed["error"]
    assert "127.0.0.1:1" in failed["error"]
    assert "pass-word" not in daemon.log()


def test_a_plain_proxy_gets_the_whole_address_and_its_own_password(
    s3: FakeS3, target: Path, start: StartDaemon
) -> None:
    s3.identities = {ACCESS_KEY: Identity(SECRET_KEY)}
    proxy = s3.endpoint.replace("http://", "http://user:pass-word@")
    daemon = start(
        {"AWS_ENDPOINT_URL": "http://s3.internal:9000", "HTTP_PROXY": proxy}
    ).until_synced()

    assert published(target) == FILES
    for request in s3.requests:
        assert request.target.startswith("http://s3.internal:9000/dags-bucket")
        assert request.headers["host"] == "s3.internal:9000"
        assert request.headers["proxy-authorization"] == "Basic dXNlcjpwYXNzLXdvcmQ="
    assert "pass-word" not in daemon.log() + daemon.get("/status").body
