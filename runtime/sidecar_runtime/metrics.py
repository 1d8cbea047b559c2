"""
The metrics that every sidecar exports, each with the constant label ``sidecar``.

They are plain numbers here: :mod:`sidecar_runtime.http.endpoint` exposes them with
prometheus_client, which a one-shot does not import.
"""

import threading
import time
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

DURATION_BUCKETS_SECONDS = (0.005, 0.02, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
REVISION_DIGITS = 12
_PUBLISHED = "sidecar_published_info"


class Series:
    """
    One time series; safe to use from any thread.

    Attributes:
        value: The number, or the sum of all observations of a histogram or summary.
        counts: Its observations by bucket, each without the smaller ones; a summary has
            one bucket.
    """

    _lock = threading.Lock()

    def __init__(self, buckets: tuple[float, ...] = ()) -> None:
        self.value = 0.0
        self.counts = [0] * (len(buckets) + 1)
        self._buckets = buckets

    def inc(self, amount: float = 1.0) -> None:
        with self._lock:
            self.value += amount

    def set(self, value: float) -> None:
        self.value = float(value)

    def set_to_current_time(self) -> None:
        self.set(time.time())

    def observe(self, value: float) -> None:
        with self._lock:
            self.value += value
            self.counts[bisect_left(self._buckets, value)] += 1


@dataclass(frozen=True)
class Family:
    """
    A metric with its series, by the values of its labels.

    Args:
        kind: ``counter``, ``gauge``, ``histogram`` or ``summary``.
        buckets: The largest value of each bucket of a histogram, without the infinite
            one.
        constant: More labels, with one value each.
    """

    kind: str
    name: str
    text: str
    label_names: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    constant: dict[str, str] = field(default_factory=dict)
    series: dict[tuple[str, ...], Series] = field(default_factory=dict)

    def labels(self, *values: str) -> Series:
        """
        Return the series with these values; the first call creates it.
        """
        return self.series.setdefault(values, Series(self.buckets))


class Metrics:
    """
    The metrics of one process and of its loop, by name.

    A sidecar adds its own through the methods below.
    """

    def __init__(self, sidecar: str, version: str, revision: str) -> None:
        self.sidecar = sidecar
        self.families: dict[str, Family] = {}
        self.cycles = self.counter_by(
            "result", "sidecar_cycles_total", "Cycles by result."
        )
        self.failures = self.counter_by(
            "reason", "sidecar_failures_total", "Failures by reason."
        )
        name, more = (
            "sidecar_cycle_duration_seconds",
            {"buckets": DURATION_BUCKETS_SECONDS},
        )
        self.duration = self.family(
            "histogram", name, "Wall time of a cycle.", **more
        ).labels()
        self._reason_since = self.family(
            "gauge",
            "sidecar_reason_since_timestamp_seconds",
            "Unix time since when cycles have failed, waited or fallen short for this reason.",
            "result",
            "reason",
        )
        text = "Unix time of the last cycle that changed, found unchanged or partial, or stood by."
        self.last_success = self.gauge("sidecar_last_success_timestamp_seconds", text)
        text = "Unix time of the last published change."
        self.last_publish = self.gauge("sidecar_last_publish_timestamp_seconds", text)
        text = "Failed cycles since the last success."
        self.consecutive_failures = self.gauge("sidecar_consecutive_failures", text)
        self.ready = self.gauge("sidecar_ready", "1 while /readyz answers 200, else 0.")
        text = "Constant 1; version and revision of this build."
        build = self.family("gauge", "sidecar_build_info", text, "version", "revision")
        build.labels(version, revision).set(1)

    def publishes_revisions(self) -> None:
        """
        Add the metric for a sidecar whose published state is a revision of its source.
        """
        text = "Constant 1; the first 12 digits of the completely published revision."
        self.family("gauge", _PUBLISHED, text, "revision")

    def show_readiness(self, *, is_ready: bool, revision: str) -> None:
        """
        Set what /readyz says now.

        Args:
            revision: The published revision; empty if there is none or only a part of
                one.
        """
        self.ready.set(is_ready)
        if published := self.families.get(_PUBLISHED):
            published.series.clear()
            if revision:
                published.labels(
                    revision.removeprefix("sha256-")[:REVISION_DIGITS]
                ).set(1)

    def show_reason(self, result: str, reason: str, since: float | None) -> None:
        """
        Set why the last cycle failed, waited or fell short; nothing, if it did not.
        """
        self._reason_since.series.clear()
        if reason and since is not None:
            self._reason_since.labels(result, reason).set(since)

    def family(
        self, kind: str, name: str, text: str, *labels: str, **more: Any
    ) -> Family:
        """
        Add a metric with the label ``sidecar`` and others.

        Args:
            more: Other arguments of :class:`Family`.
        """
        constant = {"sidecar": self.sidecar}
        self.families[name] = Family(
            kind, name, text, labels, constant=constant, **more
        )
        return self.families[name]

    def counter(self, name: str, text: str) -> Series:
        """
        Add a counter without additional labels.
        """
        return self.family("counter", name, text).labels()

    def counter_by(self, label: str, name: str, text: str) -> Callable[[str], Series]:
        """
        Add a metric; return a function from the value of an additional label to its
        counter.
        """
        return self.family("counter", name, text, label).labels

    def gauge(self, name: str, text: str) -> Series:
        """
        Add a gauge without additional labels.
        """
        return self.family("gauge", name, text).labels()

    def gauge_by(self, label: str, name: str, text: str) -> Callable[[str], Series]:
        """
        Add a metric; return a function from the value of an additional label to its
        gauge.
        """
        return self.family("gauge", name, text, label).labels
