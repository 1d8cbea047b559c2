"""
The metrics that every sidecar exports, each with the constant label ``sidecar``.

They are prometheus_client's. A one-shot has none: it ends before anybody could read
them, and importing the client would take 80 ms of each task pod.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from sidecar_runtime.errors import printable

DURATION_BUCKETS_SECONDS = (0.005, 0.02, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
REVISION_DIGITS = 12
_PUBLISHED = "sidecar_published_info"

Series = Any
"""A counter, gauge, histogram or summary of prometheus_client, or :data:`UNREAD`."""


class Unread:
    """
    The series of a one-shot, which nobody reads: whatever it is told has no effect.
    """

    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda *_: None


UNREAD = Unread()


class Family:
    """
    A metric with its series, by the values of its labels.

    Args:
        kind: ``counter``, ``gauge``, ``histogram`` or ``summary``.
        made: Of prometheus_client; None in a one-shot.
        constant: The values of labels that all series share, before the others.
    """

    def __init__(
        self,
        kind: str,
        name: str,
        text: str,
        label_names: tuple[str, ...],
        made: Any,
        constant: tuple[str, ...],
    ) -> None:
        self.kind = kind
        self.name = name
        self.text = text
        self.label_names = label_names
        self._made = made
        self._constant = constant
        self._seen: set[tuple[str, ...]] = set()

    def labels(self, *values: str) -> Series:
        """
        Return the series with these values; the first call creates it.
        """
        if self._made is None:
            return UNREAD
        self._seen.add(values)
        shown = self._shown(values)
        return self._made.labels(*shown) if shown else self._made

    def keep(self, known: Collection[tuple[str, ...]] = ()) -> None:
        """
        Remove the series with other values.
        """
        for values in self._seen.difference(known):
            self._seen.discard(values)
            self._made.remove(*self._shown(values))

    def _shown(self, values: tuple[str, ...]) -> list[str]:
        return [printable(one) for one in (*self._constant, *values)]


class Registry:
    """
    Metrics that are exposed together.

    Args:
        is_read: Whether somebody can read them; not in a one-shot.
        constant: Labels that all of them share.
    """

    def __init__(self, *, is_read: bool, constant: Mapping[str, str]) -> None:
        self.families: dict[str, Family] = {}
        self._constant = constant
        self._client: Any = None
        if is_read:
            import prometheus_client  # noqa: PLC0415 - not in one-shots

            self._client = prometheus_client
            self._client.disable_created_metrics()
            self.exposed = prometheus_client.CollectorRegistry()

    def family(
        self, kind: str, name: str, text: str, *labels: str, **more: Any
    ) -> Family:
        """
        Add a metric.

        Args:
            more: Other arguments of prometheus_client's class, such as ``buckets``.
        """
        made = None
        if self._client is not None:
            make = getattr(self._client, kind.title())
            names = (*self._constant, *labels)
            made = make(name, text, names, registry=self.exposed, **more)
        constant = tuple(self._constant.values())
        family = Family(kind, name, text, labels, made, constant)
        self.families[name] = family
        return family

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
        self.families |= other.families
        if self._client is not None:
            self.exposed.register(other.exposed)

    def tell_of_process(self) -> None:
        """
        Expose the memory, CPU and open files of this process, too.
        """
        if self._client is not None:
            self._client.ProcessCollector(registry=self.exposed)


class Metrics(Registry):
    """
    The metrics of one process and of its loop, by name.

    A sidecar adds its own through the methods below.

    Args:
        is_read: Whether somebody can read them; not in a one-shot.
    """

    def __init__(
        self, sidecar: str, version: str, revision: str, *, is_read: bool = True
    ) -> None:
        super().__init__(is_read=is_read, constant={"sidecar": sidecar})
        self.tell_of_process()
        self.cycles = self.counter_by(
            "result", "sidecar_cycles_total", "Cycles by result."
        )
        self.failures = self.counter_by(
            "reason", "sidecar_failures_total", "Failures by reason."
        )
        self.duration = self.family(
            "histogram",
            "sidecar_cycle_duration_seconds",
            "Wall time of a cycle.",
            buckets=DURATION_BUCKETS_SECONDS,
        ).labels()
        self._reason_since = self.family(
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
        self.family(
            "gauge",
            "sidecar_build_info",
            "Constant 1; version and revision of this build.",
            "version",
            "revision",
        ).labels(version, revision).set(1)

    def publishes_revisions(self) -> None:
        """
        Add the metric for a sidecar whose published state is a revision of its source.
        """
        self.family(
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
        if published := self.families.get(_PUBLISHED):
            published.keep()
            if revision:
                published.labels(
                    revision.removeprefix("sha256-")[:REVISION_DIGITS]
                ).set(1)

    def show_reason(self, result: str, reason: str, since: float | None) -> None:
        """
        Set why the last cycle failed, waited or fell short; nothing, if it did not.
        """
        self._reason_since.keep()
        if reason and since is not None:
            self._reason_since.labels(result, reason).set(since)

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
