"""
A bucket in another region than the configured one works, and costs one request more.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from tests.scenarios.s3_sync.conftest import StartDaemon
from tests.support.certificates import self_signed
from tests.support.fake_proxy import FakeProxy
from tests.support.fake_s3 import (
    ACCESS_KEY,
    SECRET_KEY,
    FakeS3,
    Identity,
    error,
    is_list,
    signed_region,
)
from tests.support.faults import first
from tests.support.scripted import FILES, fill, published


@pytest.mark.parametrize(
    ("answer", "header"),
    [("moved", True), ("redirect", True), ("malformed", True), ("malformed", False)],
    ids=["301", "307", "400", "400 with the region in the document only"],
)
def test_signs_for_the_region_that_s3_names(
    s3: FakeS3,
    target: Path,
    start: StartDaemon,
    answer: Literal["moved", "redirect", "malformed"],
    header: bool,
) -> None:
    s3.identities = {ACCESS_KEY: Identity(SECRET_KEY)}
    s3.region, s3.region_answer, s3.region_header = "eu-west-1", answer, header
    daemon = start(s3, target, {"AWS_DEFAULT_REGION": "us-east-1", "AWS_REGION": "us-east-1"})

    daemon.wait_until_synced()
    assert daemon.sync()["event"] == "cycle_finished"

    assert published(target) == FILES
    regions = [signed_region(request) for request in s3.requests]
    assert regions[0] == "us-east-1"
    assert set(regions[1:]) == {"eu-west-1"}
    assert daemon.find_events("cycle_failed") == []


def test_a_bucket_that_moves_is_followed(s3: FakeS3, target: Path, start: StartDaemon) -> None:
    """
    Deleted and made again elsewhere, under the same name.
    """
    s3.region_answer = "malformed"
    daemon = start(s3, target, {"AWS_DEFAULT_REGION": "us-east-1"})
    daemon.wait_until_synced()
    s3.region = "ap-south-1"

    assert daemon.sync()["event"] == "cycle_finished"


def test_a_region_that_is_never_right_is_not_tried_for_ever(
    s3: FakeS3, target: Path, start: StartDaemon
) -> None:
    s3.region_answer = "malformed"

    def move() -> None:
        s3.region = f"region-{len(s3.requests)}"

    s3.inject(first(move))
    daemon = start(s3, target)

    failed = daemon.wait_for_event("cycle_failed")

    assert "region" in failed["error"]
    assert len(s3.requests) <= 5


NO_REGIONS = ["us-east-1\r\nx-evil: 1", "evil.example/", "é", "user@evil.example:1", "a b"]


@pytest.mark.parametrize("region", NO_REGIONS)
def test_a_region_of_s3_that_is_no_name_is_not_followed(
    s3: FakeS3, target: Path, start: StartDaemon, region: str
) -> None:
    s3.region, s3.region_answer, s3.region_header = region, "malformed", False
    daemon = start(s3, target, {"AWS_DEFAULT_REGION": "us-east-1"})

    failed = daemon.wait_for_event("cycle_failed", timeout_seconds=3)

    assert failed["reason"] == "client_error"
    assert {signed_region(request) for request in s3.requests} == {"us-east-1"}


@pytest.mark.parametrize("region", NO_REGIONS[:2])
def test_a_configured_region_that_is_no_name_is_named(
    s3: FakeS3, target: Path, start: StartDaemon, region: str
) -> None:
    daemon = start(s3, target, {"AWS_REGION": region})

    failed = daemon.wait_for_event("cycle_failed", timeout_seconds=3)

    assert failed["reason"] == "region_invalid"
    assert s3.requests == []


@pytest.mark.parametrize("name", ["AWS_REGION", "AWS_DEFAULT_REGION", None])
def test_the_region_comes_from_either_name_or_none(
    s3: FakeS3, target: Path, start: StartDaemon, name: str | None
) -> None:
    settings: dict[str, str | None] = {"AWS_DEFAULT_REGION": None}
    if name is not None:
        settings[name] = "eu-central-1"
    daemon = start(s3, target, settings)

    daemon.wait_until_synced()

    expected = "eu-central-1" if name else "us-east-1"
    assert {signed_region(request) for request in s3.requests} == {expected}


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[tuple[FakeS3, FakeProxy, dict[str, str | None]]]:
    """
    S3 in eu-west-1 under the names that it has at AWS, behind a proxy.
    """
    hosts = (
        "s3.us-east-1",
        "s3.eu-west-1",
        "s3.dualstack.eu-west-1",
        "s3-fips.eu-west-1",
        "s3-accesspoint.eu-west-1",
    )
    names = [f"{start}{host}.amazonaws.com" for host in hosts for start in ("", "*.")]
    context, bundle = self_signed(tmp_path / "tls", *names)
    with FakeS3(region="eu-west-1", tls=context) as s3, FakeProxy(s3.port) as proxy:
        fill(s3)
        s3.identities = {ACCESS_KEY: Identity(SECRET_KEY)}
        settings: dict[str, str | None] = {
            "AWS_ENDPOINT_URL": None,
            "AWS_CA_BUNDLE": str(bundle),
            "HTTPS_PROXY": proxy.endpoint,
        }
        yield s3, proxy, settings


def test_the_real_host_names_of_aws(
    aws: tuple[FakeS3, FakeProxy, dict[str, str | None]], target: Path, start: StartDaemon
) -> None:
    s3, proxy, settings = aws
    daemon = start(s3, target, settings)

    daemon.wait_until_synced()

    assert published(target) == FILES
    assert set(proxy.asked) == {"dags-bucket.s3.eu-west-1.amazonaws.com:443"}


@pytest.mark.parametrize("answer", ["moved", "redirect", "malformed"])
def test_another_region_of_aws_is_reached_at_its_own_host(
    aws: tuple[FakeS3, FakeProxy, dict[str, str | None]],
    target: Path,
    start: StartDaemon,
    answer: Literal["moved", "redirect", "malformed"],
) -> None:
    s3, proxy, settings = aws
    s3.region_answer = answer
    daemon = start(s3, target, {**settings, "AWS_REGION": "us-east-1"})

    daemon.wait_until_synced()

    assert published(target) == FILES
    assert set(proxy.asked) == {
        "dags-bucket.s3.us-east-1.amazonaws.com:443",
        "dags-bucket.s3.eu-west-1.amazonaws.com:443",
    }
    listings = s3.seen(is_list)
    assert listings[-1].headers["host"] == "dags-bucket.s3.eu-west-1.amazonaws.com"
    assert daemon.find_events("cycle_failed") == []


def test_a_bucket_with_a_dot_is_addressed_by_path(
    aws: tuple[FakeS3, FakeProxy, dict[str, str | None]], target: Path, start: StartDaemon
) -> None:
    """
    The wildcard of S3's certificate covers one label.
    """
    s3, proxy, settings = aws
    s3.bucket = "dags.example.com"
    daemon = start(s3, target, settings)

    daemon.wait_until_synced()

    assert published(target) == FILES
    assert set(proxy.asked) == {"s3.eu-west-1.amazonaws.com:443"}


@pytest.mark.parametrize(
    ("setting", "host"),
    [
        ("AWS_USE_DUALSTACK_ENDPOINT", "dags-bucket.s3.dualstack.eu-west-1.amazonaws.com"),
        ("AWS_USE_FIPS_ENDPOINT", "dags-bucket.s3-fips.eu-west-1.amazonaws.com"),
    ],
)
def test_the_variants_of_the_endpoint(
    aws: tuple[FakeS3, FakeProxy, dict[str, str | None]],
    target: Path,
    start: StartDaemon,
    setting: str,
    host: str,
) -> None:
    s3, proxy, settings = aws
    daemon = start(s3, target, settings | {setting: "true"})

    daemon.wait_until_synced()

    assert published(target) == FILES
    assert set(proxy.asked) == {f"{host}:443"}


def test_an_access_point(
    aws: tuple[FakeS3, FakeProxy, dict[str, str | None]], target: Path, start: StartDaemon
) -> None:
    s3, proxy, settings = aws
    s3.bucket = "dags-123456789012"
    arn = "arn:aws:s3:eu-west-1:123456789012:accesspoint/dags"
    daemon = start(s3, target, settings | {"AWS_BUCKET": arn, "AWS_REGION": "us-east-1"})

    daemon.wait_until_synced()

    assert published(target) == FILES
    assert set(proxy.asked) == {"dags-123456789012.s3-accesspoint.eu-west-1.amazonaws.com:443"}
    s3.inject(error(403, "AccessDenied", "Access Denied"), is_list)
    assert arn in daemon.sync()["error"]


def test_a_proxy_that_is_down_is_named(
    aws: tuple[FakeS3, FakeProxy, dict[str, str | None]], target: Path, start: StartDaemon
) -> None:
    s3, _, settings = aws
    daemon = start(s3, target, settings | {"HTTPS_PROXY": "http://user:pass-word@127.0.0.1:1"})

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
    daemon = start(s3, target, {"AWS_ENDPOINT_URL": "http://s3.internal:9000", "HTTP_PROXY": proxy})

    daemon.wait_until_synced()

    assert published(target) == FILES
    for request in s3.requests:
        assert request.target.startswith("http://s3.internal:9000/dags-bucket")
        assert request.headers["host"] == "s3.internal:9000"
        assert request.headers["proxy-authorization"] == "Basic dXNlcjpwYXNzLXdvcmQ="
    assert "pass-word" not in daemon.log() + daemon.get("/status").body


def test_no_proxy_is_honoured(s3: FakeS3, target: Path, start: StartDaemon) -> None:
    daemon = start(s3, target, {"HTTP_PROXY": "http://127.0.0.1:1", "NO_PROXY": "127.0.0.1"})

    daemon.wait_until_synced()

    assert published(target) == FILES
