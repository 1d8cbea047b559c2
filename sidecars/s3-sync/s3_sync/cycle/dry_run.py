"""
Plans a cycle without changing anything (``S3_SYNC_DRY_RUN``).
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from s3_sync.cycle.skipped import NAMED_KEYS, Skipped
from s3_sync.layouts.open import tree_part
from s3_sync.lease import Lease
from s3_sync.metrics import SyncMetrics
from s3_sync.plan import make_plan
from s3_sync.settings import Settings
from s3_sync.source import Source, State
from s3_sync.status import Status
from s3_sync.tree.parts import read_part, read_target
from sidecar_runtime.fence import Fence
from sidecar_runtime.health import Outcome, Readiness
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.errors import explain_os_error

log = get_logger("cycle")


class DryRun:
    """
    Plans each cycle, and logs each new plan once.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: SyncMetrics,
        status: Status,
        lease: Lease,
        source: Source[Any],
    ) -> None:
        self._settings = settings
        self._status = status
        self._published = lease.published
        self._source = source
        self._skipped = Skipped(metrics, status)
        self._said: State[Any] | None = None

    async def run(self, fence: Fence) -> Outcome:
        """
        Run one cycle that changes nothing.

        Raises:
            SidecarError: The source or the target cannot be read.
        """
        state = await self._source.look(fence)
        path = self._settings.dest_path
        try:
            managed, foreign = read_target(
                path, tree_part(self._settings), with_foreign=self._settings.delete == "all"
            )
            with suppress(FileNotFoundError, NotADirectoryError), read_part(path, "") as (above, _):
                self._published.read(above)
        except OSError as error:
            raise explain_os_error(error, f"cannot read {path}") from error
        plan = make_plan(
            state.wanted,
            managed,
            # Before the first publish, the files on disk may belong to another source.
            kept=state.kept if self._published.at is not None else (),
            foreign=foreign,
            may_delete=self._settings.delete != "none",
        )
        if state is not self._said:
            log.info(
                "plan_made",
                revision=state.revision,
                files_to_publish=len(plan.publish),
                files_to_delete=len(plan.delete),
                publish=list(plan.publish[:NAMED_KEYS]),
                delete=list(plan.delete[:NAMED_KEYS]),
            )
            self._skipped.show(state.skipped, ())
            self._said = state
        self._status.readiness = Readiness(False, problem="a dry run publishes nothing")
        return Outcome("unchanged", state.revision)
