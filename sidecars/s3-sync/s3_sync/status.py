"""
The content of /readyz, the status page and the metrics: written by the cycle, read by the endpoint.
"""

from __future__ import annotations

from s3_sync.metrics import SyncMetrics
from sidecar_runtime.health import Readiness


class Status:
    """
    The current facts; each is replaced as a whole, so threads need no lock.
    """

    def __init__(self, metrics: SyncMetrics) -> None:
        self.metrics = metrics
        self.readiness = Readiness(False, problem="no cycle has finished yet")
        self.details: dict[str, object] = {}

    def show(self, **details: object) -> None:
        """
        Merge into the details; empty mappings and lists are removed.
        """
        merged = {**self.details, **details}
        self.details = {key: value for key, value in merged.items() if value not in ({}, [])}
