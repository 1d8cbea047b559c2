"""
The sidecar that the loop runs, and the thread that runs its cycles.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from s3_sync.build import Parts
from s3_sync.folder.target import Target
from s3_sync.folder.volume import Volume
from s3_sync.listing import ListingSource
from s3_sync.metrics import Status, SyncMetrics
from s3_sync.reasons import is_of_current_release
from s3_sync.release.source import ReleaseSource
from s3_sync.s3.client import S3Client
from s3_sync.settings import PREFIX, Settings
from s3_sync.sync import Sync
from sidecar_runtime.asking import Asked
from sidecar_runtime.aws.credentials import Chain
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.gate.gate import make_gate
from sidecar_runtime.health import Outcome, Readiness
from sidecar_runtime.volume.files import TargetError, TargetLock, explained

if TYPE_CHECKING:
    from s3_sync.serving import Serving


class S3Sync:
    """
    The sidecar: what outlives a cycle and its thread.
    """

    def __init__(self, settings: Settings, metrics: SyncMetrics) -> None:
        self.settings = settings
        self.lock = TargetLock()
        self.status = Status(metrics)
        pin = f"{PREFIX}REVISION" if settings.revision else ""
        self.gate = make_gate(settings, metrics.gate, pin=pin)
        self.asked = Asked() if settings.answers else None

    def begin(self) -> Session:
        return Session(self)

    def watch(self, wake: Callable[[], None]) -> None:
        """
        Let requests for a release trigger a cycle.
        """
        if self.asked is not None:
            self.asked.wake = wake

    def readiness(self) -> Readiness:
        return self.status.readiness

    def details(self) -> dict[str, object]:
        return self.status.details


def open_client(settings: Settings, metrics: SyncMetrics) -> S3Client:
    """
    Return the S3 client of the settings, which counts its requests.
    """
    return S3Client(
        settings.bucket,
        settings.prefix,
        Chain(is_anonymous=settings.bucket_access == "public"),
        lambda operation: metrics.requests[operation].inc(),
        pays=settings.bucket_access == "requester-pays",
    )


class Session:
    """
    The state of the thread that runs cycles: event loop, connections, open target.
    """

    def __init__(self, sidecar: S3Sync) -> None:
        settings, status = sidecar.settings, sidecar.status
        self._sidecar = sidecar
        self._loop = asyncio.new_event_loop()
        self._target = Target(settings, sidecar.lock, status)
        client = open_client(settings, status.metrics)
        self._source: ListingSource | ReleaseSource = ListingSource(settings, client)
        self._serving: Serving | None = None
        if settings.source_kind == "release":
            self._source = source = ReleaseSource(settings, client)
            if sidecar.asked is not None:
                from s3_sync.serving import Serving  # noqa: PLC0415 - a one-shot answers no request

                given = (settings, status.metrics, sidecar.asked, source, self._target)
                self._serving = Serving(*given)
        self._sync = Sync(Parts(settings, status, self._target, self._source, sidecar.gate))
        self._volume: Volume | None = None

    def cycle(self, fence: Fence) -> Outcome:
        """
        Run one cycle.

        Raises:
            SidecarError: The cycle failed; the published files stay.
            CycleAbandoned: The fence was revoked.
        """
        sidecar = self._sidecar
        if fence.is_asked_for and sidecar.gate is not None:
            sidecar.gate.ask_again()
        task = self._loop.create_task(self._cycle(fence))
        fence.on_revoke(lambda: self._loop.call_soon_threadsafe(task.cancel))
        outcome, readiness = self._loop.run_until_complete(task), sidecar.status.readiness
        if not sidecar.settings.one_shot or readiness.ready:
            return outcome
        if outcome.is_success:  # a one-shot ends only when the volume is ready
            raise TargetError(
                "target_failed",
                readiness.problem,
                "Find out what changes files in DEST_PATH.",
            )
        return outcome._replace(is_enough=False)

    def close(self) -> None:
        """
        Close connections, files and the event loop; the lock stays with the process.
        """
        for part in (self._source, self._serving, self._target, self._loop):
            if part is not None:
                part.close()

    async def _cycle(self, fence: Fence) -> Outcome:
        target, serving, path = self._target, self._serving, self._sidecar.settings.dest_path
        # A thread that resumes late must not touch its successor's target.
        with explained(f"cannot open {path}"), fence:
            holder = target.acquire()
        if target.volume is not self._volume:
            self._volume = target.volume
            self._sync.start_over()
            if serving is not None:
                serving.close()
        if target.volume is None:
            return Outcome("waiting", counts={"holder": holder})
        failure: SidecarError | None = None
        try:
            with explained(f"cannot write to {path}"):
                return await self._sync.cycle(fence)
        except SidecarError as error:
            failure = error
            raise
        finally:
            if not fence.is_revoked:
                target.show(fence)
                if serving is not None:
                    is_outage = failure is not None and not is_of_current_release(failure.reason)
                    with explained(f"cannot write to {path}"):
                        await serving.serve(fence, failure if is_outage else None)
