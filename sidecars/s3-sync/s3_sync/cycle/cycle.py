"""
One cycle: lock → inspect the disk → reconcile with the source; and the session of its thread.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from s3_sync.cycle.reconcile import Reconciler
from s3_sync.layouts.layout import Layout
from s3_sync.lease import Lease
from s3_sync.metrics import SyncMetrics
from s3_sync.open_source import open_source
from s3_sync.s3.client import S3Client
from s3_sync.s3.refusals import UNREADABLE
from s3_sync.settings import Settings
from s3_sync.status import Status
from s3_sync.tree.target import Torn, changed_by_others
from sidecar_runtime.asking.asked import Asked
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.gate.gate import Gate
from sidecar_runtime.health import Outcome
from sidecar_runtime.volume.errors import TargetError, explain_os_error
from sidecar_runtime.volume.lock import TargetLock

if TYPE_CHECKING:
    from s3_sync.cycle.asking import Asking

# Failures of the current release alone: older ones can still be downloaded.
_OF_THE_CURRENT = UNREADABLE | {
    "bundle_corrupt",
    "gate_undecided",
    "release_invalid",
    "release_missing",
    "release_replayed",
    "release_untrusted",
}


class Session:
    """
    The state of the thread that runs cycles: event loop, connections, open target.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: SyncMetrics,
        lock: TargetLock,
        status: Status,
        gate: Gate | None,
        asked: Asked | None,
        client: S3Client,
    ) -> None:
        self._settings = settings
        self._status = status
        self._gate = gate
        self._lease = Lease(settings, metrics, lock, status)
        self._loop = asyncio.new_event_loop()
        self._source = open_source(settings, client)
        self._reconciler = Reconciler(settings, metrics, status, gate, self._lease, self._source)
        self._asking: Asking | None = None
        if asked is not None and settings.source_kind == "release":
            from s3_sync.cycle.asking import Asking  # noqa: PLC0415 - no server in one-shots
            from s3_sync.release.source import ReleaseSource  # noqa: PLC0415

            assert isinstance(self._source, ReleaseSource)
            self._asking = Asking(settings, metrics, asked, self._source)
        self._layout: Layout | None = None

    def cycle(self, fence: Fence) -> Outcome:
        """
        Run one cycle.

        Raises:
            SidecarError: The cycle failed; the published files stay.
            CycleAbandoned: The fence was revoked.
        """
        if fence.is_asked_for and self._gate is not None:
            self._gate.ask_again()
        task = self._loop.create_task(self._cycle(fence))
        fence.on_revoke(lambda: self._loop.call_soon_threadsafe(task.cancel))
        return self._only_ready(self._loop.run_until_complete(task))

    def close(self) -> None:
        """
        Close connections, files and the event loop; the lock stays with the process.
        """
        self._source.close()
        if self._asking is not None:
            self._asking.close()
        self._lease.close()
        self._loop.close()

    def _only_ready(self, outcome: Outcome) -> Outcome:
        """
        Return the outcome; with it, a one-shot ends only if the volume is ready.

        Raises:
            TargetError: It would end with success, and the volume is not ready.
        """
        readiness = self._status.readiness
        if not self._settings.one_shot or readiness.ready:
            return outcome
        if outcome.is_success:
            raise TargetError(
                "target_failed",
                readiness.problem,
                "Find out what changes files in DEST_PATH, or blocks their paths.",
            )
        return outcome._replace(is_enough=False)

    async def _cycle(self, fence: Fence) -> Outcome:
        path = self._settings.dest_path
        try:
            with fence:  # a thread that resumes late must not touch its successor's target
                layout = self._lease.acquire()
        except OSError as error:
            raise explain_os_error(error, f"cannot open {path}", path) from error
        if layout is not self._layout:
            self._layout = layout
            self._reconciler.start_over()
            if self._asking is not None:
                self._asking.follow(layout, fence)
        if layout is None:
            return Outcome("waiting", counts={"holder": self._lease.holder})
        try:
            layout.prune(fence)
            self._lease.look(layout)
            if self._lease.damaged:  # a cycle may take minutes
                self._lease.show(layout)
            return await self._reconcile(layout, fence)
        except Torn as torn:
            self._lease.torn = layout.tree.damaged(iter(layout.tree.managed.files))
            raise changed_by_others(torn) from None
        except OSError as error:
            raise explain_os_error(error, f"cannot write to {path}", path) from error
        finally:
            if not fence.is_revoked:
                self._lease.show(layout)

    async def _reconcile(self, layout: Layout, fence: Fence) -> Outcome:
        """
        Reconcile, then download requested releases, even if reconciling failed.
        """
        asking = self._asking
        try:
            outcome = await self._reconciler.reconcile(layout, fence)
        except OSError as error:
            if asking is not None:
                asking.make_way(error, fence)
                path = self._settings.dest_path
                asking.note_outage(explain_os_error(error, f"cannot write to {path}", path))
            raise
        except SidecarError as error:
            if asking is not None:
                await asking.bring(fence)
                asking.note_outage(None if error.reason in _OF_THE_CURRENT else error)
            raise
        if asking is not None:
            await asking.bring(fence)
            asking.note_outage(None)
        return outcome
