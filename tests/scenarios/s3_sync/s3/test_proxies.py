"""Which requests go through a proxy, and what is said about it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenarios.s3_sync.conftest import StartDaemon
from tests.scenarios.s3_sync.s3.identities import NO_KEYS, accept, assert_hides
from tests.support.aws.fake_aws import FakeImds, FakePodIdentity
from tests.support.aws.fake_s3 import FakeS3
from tests.support.daemon import Settings
from tests.support.http.fake_proxy import FakeProxy
from tests.support.s3_sync.scripted import FILES, published


@pytest.fixture
def proxy(s3: FakeS3) -> Iterator[FakeProxy]:
    """A proxy that refuses every request that is not a CONNECT, and records it."""
    with FakeProxy(s3.port) as proxy:
        yield proxy


@pytest.mark.parametrize("kind", ["IMDS", "Pod Identity"])
def test_credentials_of_the_node_are_never_requested_through_a_proxy(
    s3: FakeS3, start: StartDaemon, proxy: FakeProxy, token_file: Path, kind: str
) -> None:
    with FakeImds() as imds, FakePodIdentity() as agent:
        found = imds if kind == "IMDS" else agent
        metadata: Settings = {**agent.environment(token_file)}
        if found is imds:
            metadata = {**imds.environment(), "AWS_EC2_METADATA_DISABLED": None}
        accept(s3, found.credentials)

        through = {"HTTP_PROXY": proxy.endpoint, "NO_PROXY": f"127.0.0.1:{s3.port}"}
        daemon = start(NO_KEYS | metadata | through).until_synced()

        assert published(daemon.target) == FILES
        assert found.requests
        assert_hides(daemon, found.credentials.secret_key, found.credentials.token)
    assert [] == proxy.asked


def test_missing_credentials_name_the_proxy(
    start: StartDaemon, proxy: FakeProxy
) -> None:
    through: Settings = {"HTTPS_PROXY": proxy.endpoint.replace("//", "//user:s3cr3t@")}

    daemon = start(NO_KEYS | {"AWS_EC2_METADATA_DISABLED": "true"} | through)

    failed = daemon.wait_for_event("cycle_failed", reason="credentials_missing")
    assert f"HTTPS_PROXY={proxy.endpoint.removeprefix('http://')}" in failed["advice"]
    assert "IRSA" in failed["advice"]
    assert "s3cr3t" not in daemon.log()


def test_an_entry_that_is_not_understood_is_reported_at_start_and_by_check(
    start: StartDaemon, proxy: FakeProxy, s3: FakeS3
) -> None:
    wrong = f"http://127.0.0.1:{s3.port},10.0.0.0/33"
    through: Settings = {
        "HTTP_PROXY": proxy.endpoint,
        "NO_PROXY": f"{wrong},.svc,minio:9000",
    }

    daemon = start(through)
    warned = daemon.wait_for_event("setting_unused")
    daemon.wait_for_event("cycle_failed")
    checked = start(through, arguments=("check",))
    checked.wait_for_exit(60)

    assert "NO_PROXY" == warned["setting"]
    for entry in wrong.split(","):
        assert entry in warned["why"]
        assert entry in checked.log()
    assert "svc" not in warned["why"] and "minio" not in warned["why"]
    assert proxy.asked
    assert all(url.startswith(f"http://127.0.0.1:{s3.port}/") for url in proxy.asked)
