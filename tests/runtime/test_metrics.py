"""
The metrics that every sidecar exports.
"""

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from sidecar_runtime.http.endpoint import registry_of
from sidecar_runtime.metrics import Metrics

COMMON = {
    "sidecar_cycles": "counter",
    "sidecar_failures": "counter",
    "sidecar_cycle_duration_seconds": "histogram",
    "sidecar_last_success_timestamp_seconds": "gauge",
    "sidecar_last_publish_timestamp_seconds": "gauge",
    "sidecar_consecutive_failures": "gauge",
    "sidecar_ready": "gauge",
    "sidecar_build_info": "gauge",
}


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("box-sync", "1.2.3", "abc")


def exposed(metrics: Metrics) -> str:
    return generate_latest(registry_of(metrics.families)).decode()


def sample(metrics: Metrics, name: str, **labels: str) -> float | None:
    return registry_of(metrics.families).get_sample_value(name, {"sidecar": "box-sync", **labels})


def test_every_sample_except_process_metrics_has_the_sidecar_label(metrics: Metrics) -> None:
    metrics.counter("box_sync_boxes_total", "Boxes.").inc()
    metrics.counter_by("kind", "box_sync_lids_total", "Lids.")("red").inc(2)
    metrics.gauge("box_sync_open", "Open.").set(3)
    metrics.gauge_by("kind", "box_sync_full", "Full.")("blue").set(4)
    metrics.cycles("error").inc()

    for family in text_string_to_metric_families(exposed(metrics)):
        if not family.name.startswith("process_"):
            for one in family.samples:
                assert one.labels["sidecar"] == "box-sync", one.name
    assert sample(metrics, "box_sync_boxes_total") == 1
    assert sample(metrics, "box_sync_lids_total", kind="red") == 2
    assert sample(metrics, "box_sync_open") == 3
    assert sample(metrics, "box_sync_full", kind="blue") == 4


@pytest.mark.parametrize("revision", ["0123456789abcdef", "0123456789ab"])
def test_the_published_revision_is_one_series_with_twelve_characters(
    metrics: Metrics, revision: str
) -> None:
    metrics.publishes_revisions()
    for name in ("", "f" * 64, revision, revision):
        metrics.show_readiness(is_ready=True, revision=name)
    assert 1 == exposed(metrics).count("sidecar_published_info{")
    assert 1 == sample(metrics, "sidecar_published_info", revision="0123456789ab")

    metrics.show_readiness(is_ready=False, revision="")
    assert 0 == exposed(metrics).count("sidecar_published_info{")
