"""
Serves /healthz, /readyz, /metrics and the status page on one port; makes no decisions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from http import HTTPStatus
from itertools import accumulate
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    ProcessCollector,
    core,
    generate_latest,
)
from prometheus_client.registry import Collector

from sidecar_runtime.health import Health
from sidecar_runtime.http.listener import Answer, Listener, listen
from sidecar_runtime.http.page import page
from sidecar_runtime.http.status import About, readiness_facts, status
from sidecar_runtime.metrics import Family, Metrics, Series
from sidecar_runtime.printable import json_text, printable
from sidecar_runtime.sidecar import Sidecar

_FAMILIES = {
    "counter": core.CounterMetricFamily,
    "gauge": core.GaugeMetricFamily,
    "histogram": core.HistogramMetricFamily,
    "summary": core.SummaryMetricFamily,
}


class Endpoint(Listener):
    """
    The HTTP server of one sidecar.

    Args:
        setting: The name of the setting for `bind`, for the error.

    Raises:
        SettingsError: The address cannot be bound (a port in use, an address of another host).
    """

    def __init__(
        self,
        bind: tuple[str, int],
        setting: str,
        *,
        about: About,
        health: Health,
        sidecar: Sidecar,
        metrics: Metrics,
        show_status: bool,
    ) -> None:
        self.about = about
        self.health = health
        self.sidecar = sidecar
        self.metrics = metrics
        self.show_status = show_status
        self.registry = registry_of(metrics.families)
        ProcessCollector(registry=self.registry)
        super().__init__(listen(bind, setting), self._find)

    def _find(self, path: str) -> Answer:
        match path.partition("?")[0]:
            case "/healthz":
                is_alive, age = self.health.is_alive, round(self.health.beat_age_seconds, 1)
                return _json({"alive": is_alive, "heartbeat_age_seconds": age}, is_good=is_alive)
            case "/readyz":
                facts = readiness_facts(self.about, self.health, self.sidecar)
                return _json(facts, is_good=facts["ready"])
            case "/metrics":
                ready, revision, *_ = self.sidecar.readiness()
                self.metrics.show_readiness(is_ready=ready, revision=revision)
                return Answer(HTTPStatus.OK, generate_latest(self.registry), CONTENT_TYPE_LATEST)
            case "/" | "/status" as shown if self.show_status:
                facts = status(self.about, self.health, self.sidecar)
                if shown == "/status":
                    return _json(facts, indent=2)
                return Answer(HTTPStatus.OK, page(facts), "text/html; charset=utf-8")
        return Answer(HTTPStatus.NOT_FOUND, b'{"error": "not found"}\n')


def _json(facts: object, *, is_good: bool = True, **how: Any) -> Answer:
    body = f"{json_text(facts, **how)}\n".encode()
    return Answer(HTTPStatus.OK if is_good else HTTPStatus.SERVICE_UNAVAILABLE, body)


def registry_of(families: Mapping[str, Family]) -> CollectorRegistry:
    """
    Return a registry that exposes the current values of metrics.
    """
    registry = CollectorRegistry()
    registry.register(_Exposed(families))
    return registry


class _Exposed(Collector):
    def __init__(self, families: Mapping[str, Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[core.Metric]:
        for family in self._families.values():
            names = [*family.constant, *family.label_names]
            exposed = _FAMILIES[family.kind](family.name, family.text, labels=names)
            for values, series in list(family.series.items()):
                shown = map(printable, (*family.constant.values(), *values))
                exposed.add_metric([*shown], **_figures(family, series))
            yield exposed


def _figures(family: Family, series: Series) -> dict[str, Any]:
    match family.kind:
        case "histogram":
            names = [*map(str, map(float, family.buckets)), "+Inf"]
            buckets = list(zip(names, accumulate(series.counts), strict=True))
            return {"buckets": buckets, "sum_value": series.value}
        case "summary":
            return {"count_value": sum(series.counts), "sum_value": series.value}
    return {"value": series.value}
