"""
Fixtures of the s3-sync scenarios: servers, a target, daemons that end with the test.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import Facts, Given
from tests.scenarios.s3_sync.s3.identities import NO_KEYS
from tests.support.aws.fake_aws import FakeSts
from tests.support.aws.fake_s3 import FakeS3
from tests.support.aws.servers import S3Server
from tests.support.daemon import Daemon, Settings
from tests.support.s3_sync.scripted import FILES, Running, daemon_for, running
from tests.support.s3_sync.snapshots import SNAPSHOT

IN_BOTH_LAYOUTS = pytest.mark.parametrize(
    "layout", [{}, SNAPSHOT], ids=["in-place", "snapshot"]
)


class StartDaemon:
    """Starts daemons, by default on the test's own server and target."""

    def __init__(self, s3: FakeS3, target: Path) -> None:
        self._s3 = s3
        self._target = target
        self.daemons: list[Daemon] = []

    def __call__(
        self,
        settings: Given | None = None,
        *,
        s3: FakeS3 | None = None,
        target: Path | None = None,
        interval: str = "1h",
        arguments: tuple[str, ...] = (),
        wrapper: tuple[str, ...] = (),
    ) -> Daemon:
        options: Facts = {"interval": interval, "arguments": arguments}
        daemon = daemon_for(
            s3 or self._s3, target or self._target, settings=settings, **options
        )
        daemon.wrapper = wrapper
        self.daemons.append(daemon)
        return daemon.start()


@pytest.fixture(params=["moto", "rclone", "minio", "versitygw"])
def server(request: pytest.FixtureRequest) -> S3Server:
    """Each real server in turn; MinIO and versitygw only with `--full`."""
    if request.param in ("minio", "versitygw"):
        request.getfixturevalue("only_in_full")
    server: S3Server = request.getfixturevalue(request.param)
    return server


@pytest.fixture
def s3() -> Iterator[FakeS3]:
    """A scripted S3 server with a few files under `dags/`."""
    with FakeS3() as server:
        server.put_all(FILES, "dags/")
        yield server


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A target that does not exist yet."""
    return tmp_path / "dags"


@pytest.fixture
def start(s3: FakeS3, target: Path) -> Iterator[StartDaemon]:
    """A function that starts daemons, which are killed when the test ends."""
    start = StartDaemon(s3, target)
    yield start
    for daemon in start.daemons:
        daemon.kill()


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One daemon for all tests of a module."""
    with running(tmp_path_factory.mktemp("one") / "dags") as one:
        yield one


@pytest.fixture
def synced(one: Running) -> Iterator[Running]:
    """
    The daemon of the module; after each test it must complete a cycle without faults.
    """
    yield one
    one.recover()


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    """A projected service account token."""
    path = tmp_path / "token"
    path.write_text("service-account-token-1")
    return path


@pytest.fixture
def sts() -> Iterator[FakeSts]:
    """A fake STS."""
    with FakeSts() as server:
        yield server


@pytest.fixture
def irsa(sts: FakeSts, token_file: Path) -> Settings:
    """The settings of a pod with IRSA and no other credentials."""
    return NO_KEYS | sts.environment(token_file)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can reach, unlike the temporary folders of pytest."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        path.chmod(0o777)
        yield path
