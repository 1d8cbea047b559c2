"""
What changed for consumers between two states, for the log, the record and the status page.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from s3_sync.digest import Content
from s3_sync.metrics import Status
from s3_sync.plan import is_held
from sidecar_runtime.logs import get_logger

NAMED_PATHS = 20

log = get_logger("cycle")
_STANDARD_LOG = logging.getLogger("cycle")


class Changes(NamedTuple):
    """
    Changes that consumers see, by path; restoring a damaged file is not a change.
    """

    added: list[str]
    changed: list[str]
    deleted: list[str]

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.deleted)

    def counts(self) -> dict[str, int]:
        """
        Return the number of changes of each kind.
        """
        return {kind: len(paths) for kind, paths in self._asdict().items()}


def compare(
    before: Mapping[str, Content], after: Mapping[str, Content], adopted: Collection[str] = ()
) -> Changes:
    """
    Return the changes between two states.

    Args:
        adopted: Paths whose file was there before, with the same content.
    """
    if before is after:
        return Changes([], [], [])
    return Changes(
        [path for path in after if path not in before and path not in adopted],
        [
            path
            for path, content in after.items()
            if path in before and path not in adopted and not is_held(before[path], content)
        ],
        [path for path in before if path not in after],
    )


def tell(name: str, changes: Changes, status: Status) -> None:
    """
    Log and show the changes of a publish, if there are any.

    Args:
        name: The name of the published state.
    """
    if not changes:
        return
    lists = {kind: paths for kind, paths in changes._asdict().items() if paths}
    is_all = _STANDARD_LOG.isEnabledFor(logging.DEBUG)
    log.info(
        "files_changed",
        name=name,
        **{f"files_{kind}": count for kind, count in changes.counts().items()},
        **{kind: paths if is_all else paths[:NAMED_PATHS] for kind, paths in lists.items()},
    )
    said = {
        kind: f"{len(paths)}: {', '.join(paths[:NAMED_PATHS])}" for kind, paths in lists.items()
    }
    at = datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds")
    status.show(last_change={"at": at, **said})
