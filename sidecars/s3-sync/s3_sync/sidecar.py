"""
The sidecar that the loop runs, and the thread that runs its cycles and answers requests
for older releases.

A one-shot ends in the runtime's loop (``Loop._conclude``); ``Session.cycle`` says
whether it may: only when the volume is ready.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

from s3_sync.build import Parts
from s3_sync.download import Work
from s3_sync.folder.snapshots import SnapshotLayout
from s3_sync.folder.target import Target
from s3_sync.folder.volume import Volume
from s3_sync.listing import ListingSource
from s3_sync.metrics import Status, SyncMetrics
from s3_sync.reasons import is_of_current_release
from s3_sync.release.asking import Asked
from s3_sync.release.source import ReleaseSource
from s3_sync.s3.client import S3Client
from s3_sync.settings import Settings
from s3_sync.sync import HELD, Sync
from sidecar_runtime.aws.credentials import Chain
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.gate.gate import make_gate
from sidecar_runtime.health import Outcome, Readiness, waits_for_holder
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.files import FULL_ERRORS, TargetLock, explained

log = get_logger("asked")


class S3Sync:
    """
    The sidecar: what outlives a cycle and its thread.
    """

    def __init__(self, settings: Settings, metrics: SyncMetrics) -> None:
        self.settings = settings
        self.lock = TargetLock()
        self.status = Status(metrics)
        self.gate = make_gate(settings, metrics.gate)
        self.asked = Asked(metrics.requested) if settings.answers else None

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
        source = ReleaseSource if settings.source_kind == "release" else ListingSource
        self._source = source(settings, open_client(settings, status.metrics))
        self._sync = Sync(
            Parts(settings, status, self._target, self._source, sidecar.gate)
        )
        self._volume: Volume | None = None
        self._serving: Serving | None = None

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
        outcome = self._loop.run_until_complete(task)
        self._tell(outcome)
        problem = sidecar.status.readiness.problem
        if not sidecar.settings.one_shot or problem is None:
            return outcome
        if outcome.is_success:  # a one-shot ends only when the volume is ready
            raise problem.with_traceback(None)
        return replace(outcome, is_enough=False)

    def _tell(self, outcome: Outcome) -> None:
        """
        Set the gauges of what a person may have to decide: they end with the outcome
        that they tell, and stay while cycles fail, which says nothing about it.
        """
        metrics = self._sidecar.status.metrics
        metrics.held.set(float(outcome.counts.get(HELD, 0)))
        metrics.gate.refused.set(outcome.reason == "revision_refused")

    async def _cycle(self, fence: Fence) -> Outcome:
        target, path = self._target, self._sidecar.settings.dest_path
        self._sync.begin_cycle()
        # A thread that resumes late must not touch its successor's target.
        with explained(f"cannot open {path}"), fence:
            holder = target.acquire()
        if target.volume is not self._volume:
            self._volume = target.volume
            self._sync.start_over()
            self._serve()
        if target.volume is None:
            return waits_for_holder(holder)
        failure: SidecarError | None = None
        try:
            with explained(f"cannot write to {path}"):
                try:
                    return await self._sync.cycle(fence)
                except (
                    OSError
                ) as error:  # all files fit, but not their list, or the record
                    if error.errno in FULL_ERRORS and target.snapshots is not None:
                        target.snapshots.make_room(fence)
                    raise
        except SidecarError as error:
            failure = error
            raise
        finally:
            if not fence.is_revoked:
                target.show(fence)
                if self._serving is not None:
                    is_outage = failure is not None and not is_of_current_release(
                        failure.reason
                    )
                    with explained(f"cannot write to {path}"):
                        await self._serving.serve(fence, failure if is_outage else None)

    def _serve(self) -> None:
        """
        Answer the consumers of the volume that is open now, if they may request
        releases.
        """
        sidecar, layout = self._sidecar, self._target.snapshots
        if self._serving is not None:
            self._serving.asked.close()
        self._serving = None
        if layout and sidecar.asked and isinstance(self._source, ReleaseSource):
            metrics = sidecar.status.metrics
            self._serving = Serving(
                sidecar.settings, metrics, sidecar.asked, self._source, layout
            )


class Serving(NamedTuple):
    """
    Answers the requests of one volume's consumers in each cycle; belongs to one thread.
    """

    settings: Settings
    metrics: SyncMetrics
    asked: Asked
    source: ReleaseSource
    layout: SnapshotLayout

    async def serve(self, fence: Fence, outage: SidecarError | None) -> None:
        """
        Download requested releases, as many as fit into a cycle; a failure is reported
        to the consumers that wait.

        Args:
            outage: The error that the cycle ended with; None if older releases can be
                read.

        Raises:
            CycleAbandoned: The fence was revoked; another thread answers now.
        """
        self.asked.outage = outage
        self.asked.follow(
            self.layout.store,
            self.layout.is_whole,
            lambda revision: revision in self.source.earlier(),
        )
        where = f"cannot write to {self.settings.dest_path}"
        for revision in self.asked.due(fence):
            with self.asked.answering(revision), explained(where):
                try:
                    with suppress(OSError):  # cycles that fail do not get that far
                        self.layout.prune(fence)
                    await self._fetch(revision, fence)
                except OSError as error:
                    if error.errno in FULL_ERRORS:
                        self.layout.make_room(fence)
                    raise
        self.metrics.files.requested.set(len(self.layout.snapshots.asked()))

    async def _fetch(self, revision: str, fence: Fence) -> None:
        """
        Download one release beside the published one; the next start removes leftovers
        of a crash.
        """
        layout = self.layout
        if layout.is_whole(revision):
            return
        state = await self.source.find(revision, fence)
        with layout.aside(revision) as folder:
            rest = layout.reuse(state.files, folder, fence)
            work = Work(folder, fence, math.inf)
            await self.source.fetch(rest, state, work, {})
            for error in work.failed.values():
                raise error
            layout.keep(revision, folder, fence)
        self.metrics.downloaded.inc(work.downloaded_bytes)
        numbers = {"files": len(state.files), "downloaded_bytes": work.downloaded_bytes}
        log.info("requested_revision_ready", revision=revision, **numbers)
