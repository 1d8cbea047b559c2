"""
Serves /healthz, /readyz, /metrics and the status page on one port; makes no decisions.
"""

from collections.abc import Iterator, Mapping
from http import HTTPStatus
from itertools import accumulate
from typing import NamedTuple

import prometheus_client as prometheus

from sidecar_runtime.errors import json_text, printable
from sidecar_runtime.health import About, Health, Sidecar
from sidecar_runtime.http.listener import Answer, Listener, listen
from sidecar_runtime.http.status import page, readiness_facts, status
from sidecar_runtime.metrics import Family, Metrics, Series


class Endpoint(NamedTuple):
    """
    What a sidecar answers to HTTP requests.

    Args:
        shows_status: Whether to serve the status page.
    """

    about: About
    health: Health
    sidecar: Sidecar
    metrics: Metrics
    shows_status: bool = True

    def start(self, bind: tuple[str, int], setting: str) -> None:
        """
        Serve an address, as :func:`sidecar_runtime.http.listener.listen` describes it.

        Raises:
            SettingsError: The address cannot be bound.
            RuntimeError: No thread can be started.
        """
        Listener(listen(bind, setting), self.answer).start()

    def answer(self, path: str) -> Answer:
        """
        Return the answer to a path, with or without a query.
        """
        match path.partition("?")[0]:
            case "/healthz":
                is_alive, age = (
                    self.health.is_alive,
                    round(self.health.beat_age_seconds, 1),
                )
                return _json(
                    {"alive": is_alive, "heartbeat_age_seconds": age}, is_good=is_alive
                )
            case "/readyz":
                facts = readiness_facts(self.health, self.sidecar)
                return _json(facts, is_good=facts["ready"])
            case "/metrics":
                readiness = self.sidecar.readiness()
                self.metrics.show_readiness(
                    is_ready=readiness.ready, revision=readiness.revision
                )
                registry = registry_of(self.metrics.families)
                prometheus.ProcessCollector(registry=registry)
                return Answer(
                    HTTPStatus.OK,
                    prometheus.generate_latest(registry),
                    prometheus.CONTENT_TYPE_LATEST,
                )
            case "/" if self.shows_status:
                facts = status(self.about, self.health, self.sidecar)
                return Answer(HTTPStatus.OK, page(facts), "text/html; charset=utf-8")
            case "/status" if self.shows_status:
                return _json(status(self.about, self.health, self.sidecar), indent=2)
        return Answer(HTTPStatus.NOT_FOUND, b'{"error": "not found"}\n')


def _json(facts: object, *, is_good: bool = True, indent: int | None = None) -> Answer:
    body = f"{json_text(facts, indent=indent)}\n".encode()
    return Answer(HTTPStatus.OK if is_good else HTTPStatus.SERVICE_UNAVAILABLE, body)


def registry_of(families: Mapping[str, Family]) -> prometheus.CollectorRegistry:
    """
    Return a registry that exposes the current values of metrics.
    """
    registry = prometheus.CollectorRegistry()
    registry.register(_Exposed(families))
    return registry


class _Exposed(prometheus.registry.Collector):
    def __init__(self, families: Mapping[str, Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[prometheus.Metric]:
        for family in self._families.values():
            name = family.name.removesuffix("_total")
            exposed = prometheus.Metric(name, family.text, family.kind)
            names = [*family.constant, *family.label_names]
            for values, series in list(family.series.items()):
                shown = map(printable, (*family.constant.values(), *values))
                labels = dict(zip(names, shown, strict=True))
                for suffix, more, value in _samples(family, series):
                    exposed.add_sample(name + suffix, labels | more, value)
            yield exposed


def _samples(
    family: Family, series: Series
) -> Iterator[tuple[str, dict[str, str], float]]:
    match family.kind:
        case "counter":
            yield "_total", {}, series.value
        case "gauge":
            yield "", {}, series.value
        case _:
            limits = [*map(str, map(float, family.buckets)), "+Inf"]
            counts = dict(zip(limits, accumulate(series.counts), strict=True))
            if family.kind == "histogram":
                for limit, count in counts.items():
                    yield "_bucket", {"le": limit}, count
            yield "_count", {}, counts["+Inf"]
            yield "_sum", {}, series.value
