"""
Older releases, for runs that began with them: brought beside what is shown, when a consumer asks.
"""

from __future__ import annotations

import errno
import time

from s3_sync.layouts.layout import Layout
from s3_sync.layouts.snapshot import Snapshot
from s3_sync.metrics import SyncMetrics
from s3_sync.plan import make_plan
from s3_sync.release.source import Release, ReleaseSource
from s3_sync.settings import Settings
from s3_sync.source import Order
from s3_sync.tree.target import Target, Torn, changed_by_others
from sidecar_runtime.asking.answers import Answers
from sidecar_runtime.asking.asked import Asked
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.errors import explain_os_error

FULL = {errno.ENOSPC, errno.EDQUOT}

log = get_logger("asked")


class Asking:
    """
    Answers consumers of one target, cycle for cycle; belongs to one thread.
    """

    def __init__(
        self, settings: Settings, metrics: SyncMetrics, asked: Asked, source: ReleaseSource
    ) -> None:
        self._path = settings.dest_path
        self._metrics = metrics
        self._source = source
        self._answers = Answers(settings.dest_path, metrics.asked, asked)
        self._layout: Snapshot | None = None
        # Looked at by this process: a look at each file of a version takes longer than the answer.
        self._whole: set[str] = set()

    def follow(self, layout: Layout | None, fence: Fence) -> None:
        """
        Answer beside the snapshots of a layout from now on, and nowhere without one.

        Raises:
            CycleAbandoned: The fence was revoked; another thread answers there.
        """
        self.close()
        if isinstance(layout, Snapshot):
            self._layout = layout
            self._answers.follow(layout.store, self._may_have, fence)

    def close(self) -> None:
        """
        Answer no more; what was brought stays.
        """
        self._answers.close()
        self._layout = None
        self._whole = set()

    async def bring(self, fence: Fence) -> None:
        """
        Bring what is waited for, as much as a cycle has time for; a failure is the answer to
        whoever waits.

        Raises:
            CycleAbandoned: The fence was revoked.
        """
        layout = self._layout
        if layout is None:
            return
        self._answers.follow(layout.store, self._may_have, fence)
        for revision in self._answers.due(fence):
            with self._answers.answering(revision):
                try:
                    await self._bring(layout, revision, fence)
                except Torn as torn:
                    raise changed_by_others(torn) from None
                except OSError as error:
                    self.make_way(error, fence)
                    what = f"cannot write to {self._path}"
                    raise explain_os_error(error, what, self._path) from error
        self._metrics.asked.kept.set(layout.asked_count)

    def make_way(self, error: OSError, fence: Fence) -> None:
        """
        Remove what was asked for and is not in use, where the volume is full: it comes again.
        """
        if self._layout is not None and error.errno in FULL and self._layout.asked_count:
            self._layout.drop_asked(fence)
            log.warning("asked_dropped", kept=self._layout.asked_count)

    def note_outage(self, error: SidecarError | None) -> None:
        """
        Note how the cycle ended.
        """
        self._answers.note_outage(error)

    def _may_have(self, revision: str) -> bool:
        """
        Whether all of a revision is here, and nothing has to be verified before consumers get it.
        """
        layout = self._layout
        if layout is None or not self._source.vouches_for(revision):
            return False
        if revision in self._whole:
            return layout.has(revision)
        if layout.is_whole(revision):
            self._whole.add(revision)
            return True
        return False

    async def _bring(self, layout: Snapshot, revision: str, fence: Fence) -> None:
        """
        Bring one release beside what is shown; a crash half-way leaves what the next start sweeps.
        """
        if self._may_have(revision):
            return
        started = time.monotonic()
        release = await self._source.find(revision, fence)
        if layout.is_whole(revision):  # from before the keys, or a restart: it is verified now
            return
        if not layout.make_room(release.wanted, fence):
            raise SidecarError(
                "asked_too_much",
                f"release {revision} and the snapshots in use exceed S3_SYNC_KEEP_ASKED_BYTES",
                "Raise S3_SYNC_KEEP_ASKED_BYTES and the sizeLimit of the volume.",
            )
        with layout.aside(revision, release.wanted, fence) as target:
            downloaded_bytes = await self._fill(target, release, fence)
            layout.keep(revision, target, fence)
        self._metrics.downloaded.inc(downloaded_bytes)
        log.info(
            "revision_brought",
            revision=revision,
            files=len(release.wanted),
            downloaded_bytes=downloaded_bytes,
            seconds=round(time.monotonic() - started, 3),
        )

    async def _fill(self, target: Target, release: Release, fence: Fence) -> int:
        """
        Let a folder have all of a release; return how much had to be downloaded, in bytes.
        """
        plan = make_plan(release.wanted, target.managed.files, may_delete=False)
        order = Order(release, plan, target, fence)
        await self._source.bring(order)
        for error in order.result.failed.values():
            raise error
        for path in order.result.blocked or release.wanted.keys() - target.managed.files.keys():
            raise Torn(path)
        return order.result.downloaded_bytes
