"""
Whether the pod is ready, and why not; what `/readyz` and the status page show of a
cycle.
"""

from __future__ import annotations

import os

from s3_sync.metrics import SyncMetrics
from s3_sync.names import RESERVED
from s3_sync.published import Published, Record, are
from s3_sync.reasons import failure, link_elsewhere
from s3_sync.settings import Settings
from s3_sync.volume import LINK, TARGET_FLAGS
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.health import Readiness
from sidecar_runtime.volume.snapshots import opened


def readiness(
    published: Published | None, problem: SidecarError | None = None
) -> Readiness:
    """
    Return whether what is published is there and intact. Pure.

    Args:
        problem: Why consumers do not see what is published.
    """
    if published is None:
        return Readiness(
            problem=failure(
                "nothing_published",
                "nothing is published that fits the settings here",
            )
        )
    if published.damaged:
        files = are(published.damaged, "published file")
        problem = failure("files_damaged", f"{files} missing or altered on disk")
    return Readiness(
        revision=published.revision,
        published_at=published.published_at,
        problem=problem,
        shortfall=published.shortfall,
    )


def read_outside(settings: Settings) -> Record:
    """
    Return the record of a target without its lock.

    Raises:
        OSError: There is no target, or it cannot be read.
    """
    with (
        opened(settings.dest_path, flags=TARGET_FLAGS) as root,
        opened(RESERVED, root) as state,
    ):
        return Record(settings, state)


def readiness_outside(settings: Settings) -> Readiness:
    """
    Return readiness as the record says it, without the lock: what is published still
    counts while another process holds it, or while the volume cannot be written.
    """
    path = settings.dest_path
    try:
        published = read_outside(settings).published
    except OSError as error:
        if isinstance(error, FileNotFoundError) and os.path.isdir(path):
            return readiness(None)  # nothing of s3-sync is in it
        return Readiness(
            problem=failure(
                "target_unreadable", f"{path} cannot be read: {error.strerror}"
            )
        )
    current = os.path.basename(os.path.realpath(f"{path}/{LINK}"))
    is_seen = published is None or current == published.name or not settings.is_snapshot
    return readiness(published, None if is_seen else link_elsewhere())


class Status:
    """
    The current facts; each is replaced as a whole, so threads need no lock.
    """

    def __init__(self, metrics: SyncMetrics) -> None:
        self.metrics = metrics
        self.readiness = Readiness()
        self.details: dict[str, object] = {}

    def show(self, **details: object) -> None:
        """
        Merge into the details; empty mappings are removed.
        """
        merged = {**self.details, **details}
        self.details = {key: value for key, value in merged.items() if value != {}}
