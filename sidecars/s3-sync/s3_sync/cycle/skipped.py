"""
Keys that cannot become files: counted, and each logged once.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping

from s3_sync.metrics import SKIP_REASONS, SyncMetrics
from s3_sync.status import Status
from sidecar_runtime.logs import get_logger
from sidecar_runtime.sidecar import Names

NAMED_KEYS = 50

log = get_logger("cycle")


class Skipped:
    """
    Reports the keys that the last cycle skipped.
    """

    def __init__(self, metrics: SyncMetrics, status: Status) -> None:
        self._metrics = metrics
        self._status = status
        self._named: set[str] = set()

    def show(self, by_key: Mapping[str, str], blocked: Iterable[str]) -> None:
        """
        Count the skipped keys by reason, log new ones, and show them on the status page.

        Args:
            by_key: The reason by key, from the source.
            blocked: Keys whose paths another owner's file blocks.
        """
        skipped = {**by_key, **dict.fromkeys(blocked, "blocked")}
        counts = dict.fromkeys(SKIP_REASONS, 0)
        for reason in skipped.values():
            counts[reason] += 1
        for reason, count in counts.items():
            self._metrics.skipped(reason).set(count)
        self._named &= skipped.keys()
        first = dict(itertools.islice(skipped.items(), NAMED_KEYS))
        for key, reason in first.items():
            if key not in self._named:
                self._named.add(key)
                log.warning("key_skipped", key=key, reason=reason)
        self._status.show(keys_skipped=Names(first))
