"""A sidecar in this process, run cycle by cycle."""

from contextlib import suppress
from pathlib import Path

import pytest

from s3_sync import command
from s3_sync.command import S3Sync, Session
from s3_sync.metrics import SyncMetrics
from s3_sync.s3.client import S3Client
from s3_sync.settings import Settings, load_settings
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.health import Outcome, Readiness
from tests import Texts
from tests.s3_sync.given import Given, config_of
from tests.support.aws.fake_s3 import FakeS3


class Process:
    """
    A sidecar for a folder; tests run its cycles. `stop` and `start` stand for a new
    process.
    """

    def __init__(self, s3: FakeS3, folder: Path) -> None:
        self.s3 = s3
        self.folder = folder
        self._session: Session | None = None

    def start(self, settings: Texts) -> None:
        environ = {
            "AWS_BUCKET": self.s3.bucket,
            "DEST_PATH": str(self.folder),
            **settings,
        }
        self._metrics = SyncMetrics()
        self._sidecar = S3Sync(load_settings(environ)[0], self._metrics)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(command, "open_client", self._open_client)
            self._session = self._sidecar.begin()

    def _open_client(self, settings: Settings, metrics: SyncMetrics) -> S3Client:
        """
        Return a client without the child for credentials, which takes longer than a
        cycle.
        """
        self._client = S3Client(
            settings.bucket,
            settings.prefix,
            Given(config_of(self.s3)),
            lambda operation: metrics.requests[operation].inc(),
        )
        return self._client

    def stop(self) -> None:
        if self._session:
            self._client.close()
            self._session.leave()
            self._session._loop.close()
            self._sidecar.lock.release()
            self._session = None

    def cycle(self) -> Outcome:
        assert self._session
        return self._session.cycle(Fence())

    def attempt(self) -> Outcome | None:
        """Run a cycle, which may fail."""
        with suppress(SidecarError):
            return self.cycle()
        return None

    def run(self, settings: Texts) -> Outcome:
        """Start, and run the first cycle."""
        self.start(settings)
        return self.cycle()

    @property
    def is_ready(self) -> bool:
        return self._sidecar.readiness().ready

    @property
    def readiness(self) -> Readiness:
        """The state that the endpoint reports."""
        return self._sidecar.readiness()

    @property
    def problem(self) -> str:
        """The reason why it is not ready."""
        problem = self.readiness.problem
        return "" if problem is None else problem.message

    @property
    def revision(self) -> str:
        """The published revision; empty if the state is partial."""
        return self.readiness.revision
