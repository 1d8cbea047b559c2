"""
Fixtures of the s3-sync scenarios: a scripted S3 server, a target, daemons that end with the test.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import pytest

from tests.scenarios.s3_sync.snapshots import A, SwappingS3
from tests.support.daemon import Daemon
from tests.support.fake_aws import FakeSts
from tests.support.fake_s3 import FakeS3
from tests.support.scripted import Running, daemon_for, fill, running


class StartDaemon(Protocol):
    """
    What the fixture `start` gives: starts a daemon, which is killed at the end of the test.
    """

    def __call__(
        self,
        s3: FakeS3,
        target: Path,
        settings: Mapping[str, str | None] | None = None,
        *,
        key_path: str = "dags",
        interval: str = "1h",
        arguments: tuple[str, ...] = (),
    ) -> Daemon: ...


@pytest.fixture
def only_in_full(request: pytest.FixtureRequest) -> None:
    """
    Skip a test that waits for a long deadline of the product, but with `--full`.
    """
    if not request.config.getoption("--full"):
        pytest.skip("waits long: runs with make test-full")


@pytest.fixture
def s3() -> Iterator[FakeS3]:
    """
    A scripted server with a few files under `dags/`.
    """
    with FakeS3() as server:
        fill(server)
        yield server


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """
    A target that does not exist yet.
    """
    return tmp_path / "dags"


@pytest.fixture
def start() -> Iterator[StartDaemon]:
    """
    Starts daemons, and kills at the end what still runs.
    """
    daemons: list[Daemon] = []

    def start_one(
        s3: FakeS3,
        target: Path,
        settings: Mapping[str, str | None] | None = None,
        *,
        key_path: str = "dags",
        interval: str = "1h",
        arguments: tuple[str, ...] = (),
    ) -> Daemon:
        daemon = daemon_for(
            s3,
            target,
            key_path=key_path,
            interval=interval,
            arguments=arguments,
            settings=settings,
        )
        daemons.append(daemon)
        return daemon.start()

    yield start_one
    for daemon in daemons:
        daemon.kill()


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """
    One daemon for all tests of a module.
    """
    with running(tmp_path_factory.mktemp("one") / "dags") as one:
        yield one


@pytest.fixture
def synced(one: Running) -> Iterator[Running]:
    """
    That daemon, in step with its bucket before and after each test.
    """
    yield one
    one.recover()


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    """
    A projected service account token.
    """
    path = tmp_path / "token"
    path.write_text("service-account-token-1")
    return path


@pytest.fixture
def sts() -> Iterator[FakeSts]:
    """
    A fake STS.
    """
    with FakeSts() as server:
        yield server


@pytest.fixture
def swapping() -> Iterator[SwappingS3]:
    """
    A bucket with revision A.
    """
    with SwappingS3() as s3:
        s3.swap(A)
        yield s3
