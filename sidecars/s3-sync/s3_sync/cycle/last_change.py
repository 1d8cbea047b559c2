"""
The last change: logged, and kept for the status page.
"""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime

from s3_sync.result import Changes
from s3_sync.status import Status
from sidecar_runtime.logs import get_logger

NAMED_PATHS = 20

log = get_logger("cycle")
_STANDARD_LOG = logging.getLogger("cycle")


class LastChange:
    """
    The last change that consumers saw.
    """

    def __init__(self, status: Status) -> None:
        self._status = status

    def show(self, name: str, changes: Changes) -> None:
        """
        Log and show the changes of a publish, if there are any.

        Args:
            name: The name of the published state.
        """
        if not changes:
            return
        lists = {"added": changes.added, "changed": changes.changed, "deleted": changes.deleted}
        is_all = _STANDARD_LOG.isEnabledFor(logging.DEBUG)
        log.info(
            "files_changed",
            name=name,
            **{f"files_{kind}": len(paths) for kind, paths in lists.items()},
            **{
                kind: paths if is_all else paths[:NAMED_PATHS]
                for kind, paths in lists.items()
                if paths
            },
        )
        said = {
            kind: f"{len(paths)}: {', '.join(paths[:NAMED_PATHS])}"
            for kind, paths in lists.items()
            if paths
        }
        at = datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds")
        self._status.show(last_change={"at": at, **said})
