"""
The metrics that every sidecar exports, each with the constant label ``sidecar``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Counter, Gauge

DURATION_BUCKETS_SECONDS = (0.005, 0.02, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

REVISION_CHARACTERS = 12


class _Unserved:
    """
    A placeholder for every metric of a process without an HTTP port; it discards all values.
    """

    def __getattr__(self, _: str) -> Callable[..., _Unserved]:
        return lambda *_, **__: self


UNSERVED: Any = _Unserved()


class Metrics:
    """
    The registry of one process and the metrics of its loop.

    A sidecar adds its own metrics through the methods below, so that all of them have the label.

    Args:
        is_served: Whether the process serves /metrics. Otherwise prometheus_client is not
            imported: with its HTTP server it would be a fifth of a one-shot's imports.
    """

    def __init__(
        self, sidecar: str, version: str, revision: str, *, is_served: bool = True
    ) -> None:
        self.sidecar = sidecar
        self.registry: CollectorRegistry = UNSERVED
        self._published_info: Gauge | None = None
        self._named = ""
        self._lock = threading.Lock()
        if is_served:
            import prometheus_client  # noqa: PLC0415 - not in one-shots

            self.registry = prometheus_client.CollectorRegistry()
            # They would be half of the exposition, and are not needed.
            prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
            prometheus_client.ProcessCollector(registry=self.registry)
        self.cycles = self.counter_by("result", "sidecar_cycles_total", "Cycles by result.")
        self.failures = self.counter_by(
            "reason", "sidecar_failures_total", "Failed cycles by reason."
        )
        self.duration = self.family(
            "Histogram",
            "sidecar_cycle_duration_seconds",
            "Wall time of a cycle.",
            buckets=DURATION_BUCKETS_SECONDS,
        ).labels(sidecar)
        self.last_success = self.gauge(
            "sidecar_last_success_timestamp_seconds",
            "Unix time of the last cycle without a failure.",
        )
        self.last_publish = self.gauge(
            "sidecar_last_publish_timestamp_seconds", "Unix time of the last published change."
        )
        self.consecutive_failures = self.gauge(
            "sidecar_consecutive_failures", "Failed cycles since the last success."
        )
        self.ready = self.gauge("sidecar_ready", "1 while /readyz answers 200, else 0.")
        self.family(
            "Gauge",
            "sidecar_build_info",
            "Constant 1; version and revision of this build.",
            "version",
            "revision",
        ).labels(sidecar, version, revision).set(1)

    def publishes_revisions(self) -> None:
        """
        Add the metric for a sidecar whose published state is a revision of its source.
        """
        self._published_info = self.family(
            "Gauge",
            "sidecar_published_info",
            "Constant 1; the first 12 characters of the completely published revision.",
            "revision",
        )

    def name_published(self, revision: str) -> None:
        """
        Set the published revision; empty if none or a partial one is published. At most one series.
        """
        with self._lock:
            before, self._named = self._named, revision[:REVISION_CHARACTERS]
            if self._published_info is None or before == self._named:
                return
            if self._named:
                self._published_info.labels(self.sidecar, self._named).set(1)
            if before:
                self._published_info.remove(self.sidecar, before)

    def family(self, kind: str, name: str, text: str, *labels: str, **more: Any) -> Any:
        """
        Return a metric of a prometheus_client class, with the label ``sidecar`` and others.
        """
        if self.registry is UNSERVED:
            return UNSERVED
        import prometheus_client  # noqa: PLC0415 - not in one-shots

        of_kind = getattr(prometheus_client, kind)
        return of_kind(name, text, ["sidecar", *labels], registry=self.registry, **more)

    def counter(self, name: str, text: str) -> Counter:
        """
        Return a counter without additional labels.
        """
        found: Counter = self.family("Counter", name, text).labels(self.sidecar)
        return found

    def counter_by(self, label: str, name: str, text: str) -> Callable[[str], Counter]:
        """
        Return a function from the value of an additional label to its counter.
        """
        family = self.family("Counter", name, text, label)
        return lambda value: family.labels(self.sidecar, value)

    def gauge(self, name: str, text: str) -> Gauge:
        """
        Return a gauge without additional labels.
        """
        found: Gauge = self.family("Gauge", name, text).labels(self.sidecar)
        return found

    def gauge_by(self, label: str, name: str, text: str) -> Callable[[str], Gauge]:
        """
        Return a function from the value of an additional label to its gauge.
        """
        family = self.family("Gauge", name, text, label)
        return lambda value: family.labels(self.sidecar, value)
