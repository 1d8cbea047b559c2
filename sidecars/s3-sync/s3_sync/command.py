"""
The command line of ``s3-sync``; the sidecar that the loop runs, and the thread that runs
its cycles and answers requests for older releases.

A one-shot ends in the runtime's loop (``Loop._end_one_shot_or_rest``); ``Session.cycle`` says
whether it may: only when the volume is ready.
"""

from __future__ import annotations

import asyncio
import math
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec

from s3_sync.build import Parts
from s3_sync.cycle import HELD, Sync
from s3_sync.layout import Layout, open_layout
from s3_sync.layout.snapshots import SnapshotLayout
from s3_sync.listing import ListingSource
from s3_sync.metrics import SyncMetrics
from s3_sync.readiness import Status, readiness_outside
from s3_sync.reasons import is_of_one_release
from s3_sync.release import read_trusted_keys
from s3_sync.release.request_socket import RequestSocket
from s3_sync.release.source import ReleaseSource
from s3_sync.s3.client import S3Client
from s3_sync.settings import Settings, load_settings
from s3_sync.tree import Fill
from s3_sync.volume import LOCK, Occupied, Volume, open_volume
from sidecar_runtime import __version__
from sidecar_runtime.app import begin_logs, run_daemon
from sidecar_runtime.aws.credentials import Chain
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.gate.gate import make_gate
from sidecar_runtime.health import About, Outcome, Readiness, waits_for_holder
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.files import FULL_ERRORS, TargetLock, explained

log = get_logger("target")


def run() -> int:
    """
    Run the command in the arguments, or the daemon; return the exit code.

    Raises:
        SidecarError: Settings are wrong, or the daemon gave up.
    """
    words = sys.argv[1:]
    if words:  # the daemon starts without importing the commands
        from s3_sync.publisher import cli  # noqa: PLC0415

        arguments = cli.read_arguments(words)
        if arguments.command in cli.COMMANDS:
            return cli.run(arguments, os.environ)
    # of the extra `daemon`, which publishing does not need
    if find_spec("httptools") is None:
        raise SidecarError(
            "package_missing", "it can only publish", "Install s3-sync[daemon]."
        )
    # another uid of the same group must be able to continue on this volume
    os.umask(0o002)
    settings, unknown = load_settings(os.environ)
    # a bad key fails the start; later it only fails a cycle
    read_trusted_keys(settings)
    if words:  # the only other command
        from s3_sync import check  # noqa: PLC0415

        return check.run(settings, unknown, open_client)
    begin_logs(settings, unknown)
    metrics = SyncMetrics(is_read=not settings.one_shot)
    sidecar = S3Sync(settings, metrics)
    return run_daemon(
        sidecar,
        settings,
        About("s3-sync", __version__, settings.source, settings.dest_path),
        metrics,
        watch=sidecar.watch,
    )


class S3Sync:
    """
    The sidecar: what outlives a cycle and its thread.
    """

    def __init__(self, settings: Settings, metrics: SyncMetrics) -> None:
        self.settings = settings
        self.lock = TargetLock()
        self.status = Status(metrics)
        self.gate = make_gate(settings, metrics.gate)
        self.asked = RequestSocket(metrics.requested) if settings.answers else None

    def begin(self) -> Session:
        return Session(self)

    def watch(self, wake: Callable[[], None]) -> None:
        """
        Let requests for a release trigger a cycle.
        """
        if self.asked:
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
    The state of the thread that runs cycles: event loop, connections, and the volume,
    which is open while this process has its lock.
    """

    def __init__(self, sidecar: S3Sync) -> None:
        settings = sidecar.settings
        self._sidecar = sidecar
        self._loop = asyncio.new_event_loop()
        source = ReleaseSource if settings.source_kind == "release" else ListingSource
        self._source = source(settings, open_client(settings, sidecar.status.metrics))
        self._sync: Sync | None = None
        # Whether what was open is not at its path any more, and nothing is opened since.
        self._is_lost = False

    def cycle(self, fence: Fence) -> Outcome:
        """
        Run one cycle.

        Raises:
            SidecarError: The cycle failed; the published files stay.
            CycleAbandoned: The fence was revoked.
        """
        sidecar = self._sidecar
        if fence.is_asked_for and sidecar.gate:
            sidecar.gate.ask_again()
        task = self._loop.create_task(self._cycle(fence))
        fence.on_revoke(lambda: self._loop.call_soon_threadsafe(task.cancel))
        outcome = self._loop.run_until_complete(task)
        # What a person may have to decide: it ends with the outcome that tells it, and
        # stays while cycles fail, which says nothing about it.
        metrics = sidecar.status.metrics
        metrics.held.set(outcome.counts.get(HELD, 0))
        metrics.gate.refused.set(outcome.reason == "revision_refused")
        problem = sidecar.status.readiness.problem
        if not sidecar.settings.one_shot or problem is None:
            return outcome
        if outcome.is_success:  # a one-shot ends only when the volume is ready
            raise problem.with_traceback(None)
        return replace(outcome, is_enough=False)

    async def _cycle(self, fence: Fence) -> Outcome:
        path = self._sidecar.settings.dest_path
        try:
            with explained(f"cannot open {path} or .s3-sync in it"):
                sync = self._enter(fence)
        except Occupied as holder:
            # Beside a holder of the same source, a one-shot has what it was started for.
            return replace(
                waits_for_holder(str(holder)),
                is_enough=not self._sidecar.status.readiness.shortfall,
            )
        failure: SidecarError | None = None
        try:
            with explained(f"cannot write to {path}"):
                try:
                    return await sync.cycle(fence)
                except OSError as error:
                    # all files fit, but not their list, or the record
                    if error.errno in FULL_ERRORS:
                        sync.parts.layout.make_room(fence)
                    raise
        except SidecarError as error:
            failure = error
            raise
        finally:
            if not fence.is_revoked:
                sync.show(fence)
                with explained(f"cannot write to {path}"):
                    await self._serve(sync.parts.layout, fence, failure)

    # --- the volume

    def _enter(self, fence: Fence) -> Sync:
        """
        Take the lock, and open what is shown on a volume that is new to this process,
        or was replaced.

        Raises:
            Occupied: Another process has the lock.
            OSError: The target cannot be opened or written; what is published still
                counts.
        """
        sidecar = self._sidecar
        settings = sidecar.settings
        try:
            with fence:
                if self._sync:
                    if self._is_ours(self._sync.parts):
                        return self._sync
                    self._is_lost = True
                    self.leave()
                volume = open_volume(
                    settings.dest_path,
                    sidecar.lock,
                    settings.mode_on_disk,
                    fsync=settings.fsync,
                )
                sync = self._join(volume)
            if self._is_lost:
                self._is_lost = False
                log.warning("target_reopened", path=settings.dest_path)
            sync.take_over(fence)
        except BaseException as error:
            self.leave()
            if isinstance(error, Occupied | OSError):
                sidecar.status.readiness = readiness_outside(settings)
            if isinstance(error, Occupied):
                sidecar.status.details = {}
            raise
        return sync

    def _is_ours(self, parts: Parts) -> bool:
        """
        Whether what is open is still at its path, and locked by this process.
        """
        volume = parts.volume
        return (
            volume.is_current()
            and parts.layout.is_current()
            and self._sidecar.lock.try_acquire(LOCK, volume.state)
        )

    def _join(self, volume: Volume) -> Sync:
        """
        Join the parts of an open volume.
        """
        sidecar = self._sidecar
        settings = sidecar.settings
        try:
            layout = open_layout(settings, volume)
        except BaseException:
            volume.close()
            raise
        parts = Parts(
            settings=settings,
            status=sidecar.status,
            source=self._source,
            gate=sidecar.gate,
            volume=volume,
            layout=layout,
        )
        self._sync = Sync(parts)
        return self._sync

    def leave(self) -> None:
        """
        Close all open folders and files, but first the socket, whose thread looks into
        them; the process keeps the lock.
        """
        if self._sidecar.asked:
            self._sidecar.asked.close()
        # It is left once, even if closing fails (NFS reports quotas then).
        sync = self._sync
        self._sync = None
        if sync:
            sync.close()

    async def _serve(
        self, layout: Layout, fence: Fence, failure: SidecarError | None
    ) -> None:
        """
        Do what may take as long as there are older releases and snapshots, now that
        what is shown is as it should be.
        """
        if not isinstance(layout, SnapshotLayout):
            return
        sidecar = self._sidecar
        if sidecar.asked and isinstance(self._source, ReleaseSource):
            # What is wrong with the current release says nothing about the others.
            is_of_release = failure and is_of_one_release(failure.reason)
            sidecar.asked.outage = None if is_of_release else failure
            await self._answer(sidecar.asked, self._source, layout, fence)
        layout.inspect_older(fence)

    async def _answer(
        self,
        asked: RequestSocket,
        source: ReleaseSource,
        layout: SnapshotLayout,
        fence: Fence,
    ) -> None:
        """
        Download requested releases, as many as fit into a cycle; a failure is reported
        to the consumers that wait.

        Raises:
            CycleAbandoned: The fence was revoked.
        """
        asked.follow(
            layout.store,
            layout.is_whole,
            lambda revision: revision in source.earlier(),
        )
        for revision in list(asked.waiting):
            fence.wait(0)
            with (
                asked.answering(revision),
                explained(f"cannot write to {self._sidecar.settings.dest_path}"),
            ):
                try:
                    with suppress(OSError):  # cycles that fail do not get that far
                        layout.prune(fence)
                    await self._fetch(revision, source, layout, fence)
                except OSError as error:
                    if error.errno in FULL_ERRORS:
                        layout.make_room(fence)
                    raise
        self._sidecar.status.metrics.files.requested.set(len(layout.snapshots.asked()))

    async def _fetch(
        self,
        revision: str,
        source: ReleaseSource,
        layout: SnapshotLayout,
        fence: Fence,
    ) -> None:
        """
        Download one release beside the published one; the next start removes leftovers
        of a crash.
        """
        if layout.is_whole(revision):
            return
        state = await source.find(revision, layout.volume, fence)
        with layout.aside(revision) as tree:
            layout.reuse(state.files, tree, fence)
            fill = Fill(tree, fence, math.inf)
            await source.fetch(
                [path for path in state.files if path not in tree.files],
                state,
                fill,
                {},
            )
            fill.raise_first()
            layout.keep(revision, tree, fence)
        self._sidecar.status.metrics.downloaded.inc(fill.downloaded_bytes)
        log.info(
            "requested_revision_ready",
            revision=revision,
            files=len(state.files),
            downloaded_bytes=fill.downloaded_bytes,
        )
