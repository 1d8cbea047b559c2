"""
The metrics that every sidecar exports, each with the constant label ``sidecar``.

They are prometheus_client's. A one-shot has none: it ends before anybody could read
them, and importing the client would take 80 ms of each task pod.
"""

from collections.abc import Callable
from typing import Any

from sidecar_runtime import REVISION, __version__
from sidecar_runtime.errors import SidecarError, printable

DURATION_BUCKETS_SECONDS = (0.005, 0.02, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
REVISION_DIGITS = 12
_PUBLISHED = "sidecar_published_info"

Metric = Any
"""A metric of prometheus_client or one of its series, or :data:`UNREAD`."""


class Unread:
    """
    The metrics of a one-shot, which nobody reads: whatever they are told has no effect.
    """

    def __getattr__(self, _: str) -> Callable[..., "Unread"]:
        return lambda *_: self


UNREAD = Unread()


class Registry:
    """
    Metrics that are exposed together.

    Args:
        is_read: Whether somebody can read them; not in a one-shot.
        constant: The name of a label that all of them have, before others; or none.

    Attributes:
        metrics: By name.
    """

    def __init__(self, *constant: str, is_read: bool) -> None:
        self.metrics: dict[str, Metric] = {}
        self._constant = constant
        self._client: Any = None
        if is_read:
            import prometheus_client  # noqa: PLC0415 - not in one-shots

            self._client = prometheus_client
            self._client.disable_created_metrics()
            self.exposed = prometheus_client.CollectorRegistry()

    def add(self, kind: str, name: str, text: str, *labels: str, **more: Any) -> Metric:
        """
        Add a metric.

        Args:
            kind: ``counter``, ``gauge``, ``histogram`` or ``summary``.
            more: Other arguments of prometheus_client's class, such as ``buckets``.
        """
        if self._client is None:
            return UNREAD
        metric = getattr(self._client, kind.title())(
            name, text, (*self._constant, *labels), registry=self.exposed, **more
        )
        self.metrics[name] = metric
        return metric

    def answer(self) -> tuple[bytes, str]:
        """
        Return what a scrape gets, and its content type.
        """
        text: bytes = self._client.generate_latest(self.exposed)
        return text, self._client.CONTENT_TYPE_LATEST

    def adopt(self, other: "Registry") -> None:
        """
        Expose the metrics of another registry, too.
        """
        self.metrics |= other.metrics
        if self._client:
            self.exposed.register(other.exposed)


class Metrics(Registry):
    """
    The metrics of one process and of its loop, by name.

    A sidecar adds its own through the methods below.

    Args:
        is_read: Whether somebody can read them; not in a one-shot.
    """

    def __init__(self, sidecar: str, *, is_read: bool = True) -> None:
        super().__init__("sidecar", is_read=is_read)
        self.sidecar = sidecar
        if self._client:
            self._client.ProcessCollector(registry=self.exposed)
        self.cycles = self.counter(
            "sidecar_cycles_total", "Cycles by result.", "result"
        )
        self.failures = self.counter(
            "sidecar_failures_total", "Failures by reason.", "reason"
        )
        self.duration = self.add(
            "histogram",
            "sidecar_cycle_duration_seconds",
            "Wall time of a cycle.",
            buckets=DURATION_BUCKETS_SECONDS,
        ).labels(sidecar)
        self._reason_since = self.add(
            "gauge",
            "sidecar_reason_since_timestamp_seconds",
            "Unix time since when cycles have failed, waited or fallen short for this reason.",
            "result",
            "reason",
        )
        self.last_success = self.gauge(
            "sidecar_last_success_timestamp_seconds",
            "Unix time of the last cycle that changed, found unchanged or partial, or stood by.",
        )
        self.last_publish = self.gauge(
            "sidecar_last_publish_timestamp_seconds",
            "Unix time of the last published change.",
        )
        self.consecutive_failures = self.gauge(
            "sidecar_consecutive_failures", "Failed cycles since the last success."
        )
        self.ready = self.gauge("sidecar_ready", "1 while /readyz answers 200, else 0.")
        self.add(
            "gauge",
            "sidecar_build_info",
            "Constant 1; version and revision of this build.",
            "version",
            "revision",
        ).labels(sidecar, __version__, REVISION).set(1)

    def publishes_revisions(self) -> None:
        """
        Add the metric for a sidecar whose published state is a revision of its source.
        """
        self.add(
            "gauge",
            _PUBLISHED,
            "Constant 1; the first 12 digits of the completely published revision.",
            "revision",
        )

    def show_readiness(self, *, is_ready: bool, revision: str) -> None:
        """
        Set what /readyz says now.

        Args:
            revision: The published revision; empty if there is none or only a part of
                one.
        """
        self.ready.set(is_ready)
        published = self.metrics.get(_PUBLISHED, UNREAD)
        published.clear()
        if revision:
            published.labels(
                self.sidecar,
                printable(revision.removeprefix("sha256-")[:REVISION_DIGITS]),
            ).set(1)

    def show_reason(
        self, result: str, why: SidecarError | None, since: float | None
    ) -> None:
        """
        Set the reason that /readyz gives now; none, or since when nobody knows: no series.
        """
        self._reason_since.clear()
        if why and since:
            self._reason_since.labels(self.sidecar, result, why.reason).set(since)

    def counter(self, name: str, text: str, by: str = "") -> Metric:
        """
        Add a counter; with a label besides ``sidecar``, return a function from its
        value to its series.
        """
        return self._add_own("counter", name, text, by)

    def gauge(self, name: str, text: str, by: str = "") -> Metric:
        """
        Add a gauge, as :meth:`counter`.
        """
        return self._add_own("gauge", name, text, by)

    def _add_own(self, kind: str, name: str, text: str, by: str) -> Metric:
        if by:
            series = self.add(kind, name, text, by).labels
            return lambda value: series(self.sidecar, printable(value))
        return self.add(kind, name, text).labels(self.sidecar)
