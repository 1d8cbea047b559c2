"""
Downloads requested older releases beside the published one, for runs that began with them.
"""

from __future__ import annotations

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
from sidecar_runtime.volume.errors import FULL_ERRORS, explain_os_error

log = get_logger("asked")


class Asking:
    """
    Answers the requests of one target's consumers in each cycle; belongs to one thread.
    """

    def __init__(
        self, settings: Settings, metrics: SyncMetrics, asked: Asked, source: ReleaseSource
    ) -> None:
        self._path = settings.dest_path
        self._metrics = metrics
        self._source = source
        self._answers = Answers(settings.dest_path, metrics.asked, asked)
        self._layout: Snapshot | None = None
        # Revisions inspected by this process: inspecting all files takes longer than an answer.
        self._whole: set[str] = set()

    def follow(self, layout: Layout | None, fence: Fence) -> None:
        """
        Answer requests for the snapshots of this layout from now on; None: for no layout.

        Raises:
            CycleAbandoned: The fence was revoked; another thread answers now.
        """
        self.close()
        if isinstance(layout, Snapshot):
            self._layout = layout
            self._answers.follow(layout.store, self._may_have, fence)

    def close(self) -> None:
        """
        Stop answering; downloaded releases stay.
        """
        self._answers.close()
        self._layout = None
        self._whole = set()

    async def bring(self, fence: Fence) -> None:
        """
        Download requested releases, as many as fit into a cycle; a failure is reported to the
        consumers that wait.

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
        Remove requested releases that are not in use if the volume is full; a new request
        downloads them again.
        """
        if self._layout is not None and error.errno in FULL_ERRORS and self._layout.asked_count:
            self._layout.drop_asked(fence)
            log.warning("requested_revisions_removed", kept=self._layout.asked_count)

    def note_outage(self, error: SidecarError | None) -> None:
        """
        Note the error that the cycle ended with; None if it succeeded.
        """
        self._answers.note_outage(error)

    def _may_have(self, revision: str) -> bool:
        """
        Whether a revision is complete on disk and verified, so that consumers may read it now.
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
        Download one release beside the published one; the next start removes leftovers of a crash.
        """
        if self._may_have(revision):
            return
        started = time.monotonic()
        release = await self._source.find(revision, fence)
        if layout.is_whole(revision):  # from before a restart or new keys; `find` has verified it
            return
        if not layout.make_room(release.wanted, fence):
            raise SidecarError(
                "request_limit",
                f"release {revision} and the snapshots in use exceed S3_SYNC_KEEP_REQUESTED_BYTES",
                "Raise S3_SYNC_KEEP_REQUESTED_BYTES and the sizeLimit of the volume.",
            )
        with layout.aside(revision, release.wanted, fence) as target:
            downloaded_bytes = await self._fill(target, release, fence)
            layout.keep(revision, target, fence)
        self._metrics.downloaded.inc(downloaded_bytes)
        log.info(
            "requested_revision_ready",
            revision=revision,
            files=len(release.wanted),
            downloaded_bytes=downloaded_bytes,
            seconds=round(time.monotonic() - started, 3),
        )

    async def _fill(self, target: Target, release: Release, fence: Fence) -> int:
        """
        Fill a folder with all files of a release; return the number of bytes downloaded.
        """
        plan = make_plan(release.wanted, target.managed.files, may_delete=False)
        order = Order(release, plan, target, fence)
        await self._source.bring(order)
        for error in order.result.failed.values():
            raise error
        for path in order.result.blocked or release.wanted.keys() - target.managed.files.keys():
            raise Torn(path)
        return order.result.downloaded_bytes
