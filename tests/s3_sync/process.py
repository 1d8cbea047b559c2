"""One sidecar in this process, cycle by cycle."""

from functools import partial
from pathlib import Path

from s3_sync.cycle.cycle import Session
from s3_sync.metrics import SyncMetrics
from s3_sync.open_source import open_client
from s3_sync.settings import load_settings
from s3_sync.sidecar import S3Sync
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.health import Outcome, Readiness
from tests.s3_sync.failing import failure
from tests.s3_sync.given import AT_ONCE, Given, config_of
from tests.support.descriptors import held
from tests.support.fake_s3 import FakeS3
from tests.support.scripted import published


class Process:
    """One sidecar on a folder, whose cycles are run by hand; `restart` is the next process."""

    def __init__(self, s3: FakeS3, folder: Path) -> None:
        self.s3 = s3
        self.folder = folder
        self._session: Session | None = None

    def start(self, settings: dict[str, str]) -> None:
        environ = {"AWS_BUCKET": self.s3.bucket, "DEST_PATH": str(self.folder), **settings}
        self._metrics = SyncMetrics("0", "r")
        # The child that asks botocore takes longer than all the rest of a cycle.
        given = partial(open_client, chain=Given(config_of(self.s3)), patience=AT_ONCE)
        self._sidecar = S3Sync(load_settings(environ)[0], self._metrics, given)
        self._session = self._sidecar.begin()

    def stop(self) -> None:
        if self._session is not None:
            self._session.close()
            self._sidecar._lock.release()
            self._session = None

    def restart(self, settings: dict[str, str]) -> None:
        self.stop()
        self.start(settings)

    @property
    def _running(self) -> Session:
        assert self._session is not None
        return self._session

    def cycle(self, *, is_asked_for: bool = False) -> Outcome:
        return self._running.cycle(Fence(is_asked_for=is_asked_for))

    def fail(self) -> SidecarError:
        """Run a cycle that fails, and return how."""
        return failure(self.cycle)

    def run(self, settings: dict[str, str]) -> Outcome:
        """Start, and run the first cycle."""
        self.start(settings)
        return self.cycle()

    def glance(self) -> bool:
        return self._running.glance()

    @property
    def can_wait_for_news(self) -> bool:
        return self._running.can_wait_for_news

    @property
    def is_ready(self) -> bool:
        return self._sidecar.readiness().ready

    @property
    def readiness(self) -> Readiness:
        """What the endpoint says."""
        return self._sidecar.readiness()

    @property
    def problem(self) -> str:
        """Why it is not ready."""
        return self.readiness.problem

    @property
    def revision(self) -> str:
        """What is published, all of it."""
        return self.readiness.revision

    @property
    def details(self) -> dict[str, object]:
        """What the status page shows."""
        return self._sidecar.details()

    def metric(self, name: str, **labels: str) -> float | None:
        """A sample of what is scraped; None where there is none."""
        return self._metrics.registry.get_sample_value(name, {"sidecar": "s3-sync", **labels})

    @property
    def held(self) -> list[str]:
        """
        Its files and folders that are open; other threads of the test process open other things.
        """
        return held(self.folder)

    @property
    def shown(self) -> dict[str, bytes]:
        """What consumers read."""
        current = self.folder / "current"
        if current.is_symlink():
            return published(current.resolve())
        return published(self.folder)
