"""
The metrics that every sidecar has, each with the constant label ``sidecar``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

DURATION_BUCKETS_SECONDS = (0.005, 0.02, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

REVISION_CHARACTERS = 12


class Metrics:
    """
    The registry of one process and the metrics of its loop.

    A sidecar adds its own through the four methods, so that all carry the label.
    """

    def __init__(self, sidecar: str, version: str, revision: str) -> None:
        self.sidecar = sidecar
        self._published_info: Gauge | None = None
        self._named = ""
        self._lock = threading.Lock()
        self.registry = CollectorRegistry()
        disable_created_metrics()  # type: ignore[no-untyped-call] # half the exposition, and nobody asks for it
        ProcessCollector(registry=self.registry)
        self.cycles = self.counter_by("result", "sidecar_cycles_total", "Cycles by result.")
        self.failures = self.counter_by(
            "reason", "sidecar_failures_total", "Failed cycles by reason."
        )
        self.duration = Histogram(
            "sidecar_cycle_duration_seconds",
            "Wall time of a cycle.",
            ["sidecar"],
            registry=self.registry,
            buckets=DURATION_BUCKETS_SECONDS,
        ).labels(sidecar)
        self.last_success = self.gauge(
            "sidecar_last_success_timestamp_seconds", "Unix time of the last successful cycle."
        )
        self.last_publish = self.gauge(
            "sidecar_last_publish_timestamp_seconds", "Unix time of the last published change."
        )
        self.consecutive_failures = self.gauge(
            "sidecar_consecutive_failures", "Failed cycles since the last success."
        )
        self.ready = self.gauge("sidecar_ready", "1 while /readyz answers 200, else 0.")
        Gauge(
            "sidecar_build_info",
            "Constant 1; version and revision of this build.",
            ["sidecar", "version", "revision"],
            registry=self.registry,
        ).labels(sidecar, version, revision).set(1)

    def publishes_revisions(self) -> None:
        """
        Add the metric for a sidecar whose published state is a revision of its source.
        """
        self._published_info = Gauge(
            "sidecar_published_info",
            "Constant 1; the first 12 characters of the revision that is published whole.",
            ["sidecar", "revision"],
            registry=self.registry,
        )

    def name_published(self, revision: str) -> None:
        """
        Note what is published now; empty for nothing, or for a part. There is one series at most.
        """
        with self._lock:
            before, self._named = self._named, revision[:REVISION_CHARACTERS]
            if self._published_info is None or before == self._named:
                return
            if self._named:
                self._published_info.labels(self.sidecar, self._named).set(1)
            if before:
                self._published_info.remove(self.sidecar, before)

    def counter(self, name: str, text: str) -> Counter:
        """
        Return a counter without further labels.
        """
        return Counter(name, text, ["sidecar"], registry=self.registry).labels(self.sidecar)

    def counter_by(self, label: str, name: str, text: str) -> Callable[[str], Counter]:
        """
        Return a function from the value of one further label to its counter.
        """
        family = Counter(name, text, ["sidecar", label], registry=self.registry)
        return lambda value: family.labels(self.sidecar, value)

    def gauge(self, name: str, text: str) -> Gauge:
        """
        Return a gauge without further labels.
        """
        return Gauge(name, text, ["sidecar"], registry=self.registry).labels(self.sidecar)

    def gauge_by(self, label: str, name: str, text: str) -> Callable[[str], Gauge]:
        """
        Return a function from the value of one further label to its gauge.
        """
        family = Gauge(name, text, ["sidecar", label], registry=self.registry)
        return lambda value: family.labels(self.sidecar, value)
