"""
The metrics of s3-sync, written by the cycle.
"""

from __future__ import annotations

from s3_sync.s3.refusals import Operation
from sidecar_runtime.gate.gate import GateMetrics
from sidecar_runtime.metrics import Metrics

_SKIPPED = "unsafe_path name_too_long too_deep file_and_folder reserved release archived name_clash"
SKIP_REASONS = tuple(_SKIPPED.split())
# Operations that the daemon sends to S3.
OPERATIONS: tuple[Operation, ...] = ("list", "get", "pointer", "manifest", "bundle")


class SyncMetrics(Metrics):
    """
    The metrics of all sidecars, and those of s3-sync.
    """

    def __init__(self, *, is_read: bool = True) -> None:
        super().__init__("s3-sync", is_read=is_read)
        self.publishes_revisions()
        self.files = FileMetrics(self)
        self.downloaded = self.counter(
            "s3_sync_downloaded_bytes_total", "Bytes of object bodies downloaded."
        )
        self.skipped = self.gauge(
            "s3_sync_skipped_keys",
            "Keys that cannot become files, by reason.",
            "reason",
        )
        self.unread = self.gauge(
            "s3_sync_unread_objects",
            "Objects whose current version cannot be read or does not fit on disk, by reason.",
            "reason",
        )
        self.partial = self.gauge(
            "s3_sync_partial", "1 while the published state is partial, else 0."
        )
        self.held = self.gauge(
            "s3_sync_held_deletions",
            "Files whose deletion S3_SYNC_MAX_DELETE holds back.",
        )
        self.gate = GateMetrics(self)
        self.requested = self.counter(
            "sidecar_requested_revisions_total",
            "Requested older revisions, by result.",
            "result",
        )
        requests = self.counter(
            "s3_sync_requests_total", "Requests sent to S3, by operation.", "operation"
        )
        self.requests = {name: requests(name) for name in OPERATIONS}
        for reason in SKIP_REASONS:
            self.skipped(reason).set(0)


class FileMetrics:
    """
    The metrics of files and snapshots on disk.
    """

    def __init__(self, metrics: Metrics) -> None:
        counter = metrics.counter
        gauge = metrics.gauge
        self.published = counter(
            "s3_sync_published_files_total", "Files published: new, changed or adopted."
        )
        self.deleted = counter(
            "s3_sync_deleted_files_total",
            "Files removed because the source does not have them.",
        )
        self.healed = counter(
            "s3_sync_healed_files_total",
            "Published files restored after damage on disk.",
        )
        self.requested = gauge(
            "sidecar_requested_snapshots",
            "Snapshots on the volume because a consumer requested them.",
        )
        self.managed = gauge(
            "s3_sync_managed_files", "Files on disk that s3-sync published."
        )
        self.unverified = gauge(
            "s3_sync_unverified_files",
            "Managed files whose content no checksum has verified.",
        )
