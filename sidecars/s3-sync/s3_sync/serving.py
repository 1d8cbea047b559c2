"""
Downloads requested older releases beside the published one, for runs that began with them.
"""

from __future__ import annotations

import math
import time

from s3_sync.download import Work
from s3_sync.folder.snapshots import SnapshotLayout
from s3_sync.folder.target import Target
from s3_sync.metrics import SyncMetrics
from s3_sync.plan import not_held
from s3_sync.release.source import ReleaseSource
from s3_sync.settings import Settings
from sidecar_runtime.asking import Answers, Asked
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.files import explain_os_error

log = get_logger("asked")


class Serving:
    """
    Answers the requests of one target's consumers in each cycle; belongs to one thread.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: SyncMetrics,
        asked: Asked,
        source: ReleaseSource,
        target: Target,
    ) -> None:
        self._path = settings.dest_path
        self._metrics = metrics
        self._source = source
        self._target = target
        self._answers = Answers(settings.dest_path, metrics.asked, asked)
        self._layout: SnapshotLayout | None = None
        # Releases inspected by this process: inspecting all files takes longer than an answer.
        self._whole: set[str] = set()

    def close(self) -> None:
        """
        Stop answering; downloaded releases stay.
        """
        self._answers.close()

    async def serve(self, fence: Fence, outage: SidecarError | None) -> None:
        """
        Download requested releases, as many as fit into a cycle; a failure is reported to the
        consumers that wait.

        Args:
            outage: The error that the cycle ended with; None if older releases can be read.

        Raises:
            CycleAbandoned: The fence was revoked; another thread answers now.
        """
        self._answers.note_outage(outage)
        layout = self._target.snapshots
        if layout is None:
            return
        if layout is not self._layout:
            self._layout, self._whole = layout, set()
        self._answers.follow(layout.store, self._has, fence)
        for revision in self._answers.due(fence):
            with self._answers.answering(revision):
                try:
                    await self._fetch(layout, revision, fence)
                except OSError as error:
                    layout.make_room(fence)
                    what = f"cannot write to {self._path}"
                    raise explain_os_error(error, what) from error
        self._metrics.asked.kept.set(len(layout.snapshots.asked()))

    def _has(self, revision: str) -> bool:
        """
        Whether a release is complete on disk and was inspected, so that consumers may read it now.
        """
        layout = self._layout
        if layout is None or not layout.snapshots.has(revision):
            return False
        if revision not in self._whole and layout.is_whole(revision):
            self._whole.add(revision)
        return revision in self._whole

    async def _fetch(self, layout: SnapshotLayout, revision: str, fence: Fence) -> None:
        """
        Download one release beside the published one; the next start removes leftovers of a crash.
        """
        if self._has(revision):
            return
        started = time.monotonic()
        state = await self._source.find(revision, fence)
        with layout.aside(revision) as folder:
            layout.reuse(state.files, folder, fence)
            work = Work(folder, fence, math.inf)
            rest = not_held(state.files, state.files, folder.files)
            await self._source.fetch(rest, state, work, {})
            for error in work.failed.values():
                raise error
            layout.keep(revision, folder, fence)
        self._metrics.downloaded.inc(work.downloaded_bytes)
        log.info(
            "requested_revision_ready",
            revision=revision,
            files=len(state.files),
            downloaded_bytes=work.downloaded_bytes,
            seconds=round(time.monotonic() - started, 3),
        )
