"""
A real Prometheus scrapes with the configurations of charts-snippets/monitoring.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.chart import files
from tests.chart.monitoring.monitoring import GIT_SYNC_PORT, load
from tests.chart.sidecars import SIDECARS, Values
from tests.support.prometheus import Prometheus, skip_without_prometheus
from tests.support.waiting import wait_until

# Kubernetes allows 15 characters: git-sync-http for git-sync-wrapper.
PORTS = {f"{name.removesuffix('-wrapper')}-http": one.port for name, one in SIDECARS.items()}

Container = tuple[str, str | None, int | None]
"""The name of the container, and the name and number of its port (None: no port)."""


def pods() -> dict[str, list[Container]]:
    """
    Return the pods of the snippets: each container with the port that it declares.
    """
    s3_sync, kerberos, sync_perm = (
        (name, f"{name}-http", PORTS[f"{name}-http"])
        for name in ("s3-sync", "kerberos", "sync-perm")
    )
    return {
        "airflow-worker-0": [("worker", "worker-logs", 8793), s3_sync, kerberos],
        "airflow-api-server": [("api-server", "api-server", 8080), sync_perm],
        "airflow-dag-processor": [("dag-processor", None, None), ("git-sync", None, None)],
        "git-sync": [("git-sync-wrapper", "git-sync-http", GIT_SYNC_PORT)],
        "airflow-scheduler": [("scheduler", None, None), ("git-sync-init", None, None)],
    }


EXPECTED = {
    ("airflow-worker-0", "s3-sync", 9811),
    ("airflow-worker-0", "kerberos", 9813),
    ("airflow-api-server", "sync-perm", 9812),
    ("airflow-dag-processor", "git-sync", 9814),
    ("git-sync", "git-sync-wrapper", 9814),
}


def discovered(phase: str = "Running") -> list[Values]:
    """
    Return targets as Prometheus discovers pods: one per port, or one without a port.

    https://prometheus.io/docs/prometheus/latest/configuration/configuration/#pod
    """
    found = []
    for pod, containers in pods().items():
        for container, port_name, port in containers:
            labels = {
                "__meta_kubernetes_namespace": "airflow",
                "__meta_kubernetes_pod_name": pod,
                "__meta_kubernetes_pod_ip": "127.0.0.1",
                "__meta_kubernetes_pod_phase": phase,
                "__meta_kubernetes_pod_container_name": container,
            }
            if port:
                labels["__meta_kubernetes_pod_container_port_name"] = port_name or ""
                labels["__meta_kubernetes_pod_container_port_number"] = str(port)
            address = f"127.0.0.1:{port}" if port else "127.0.0.1"
            found.append({"targets": [address], "labels": labels})
    return found


def scrape_jobs() -> list[Values]:
    """
    Return the jobs of the plain configuration, with static targets instead of discovery.
    """
    jobs = load("scrape-config.yaml")["scrape_configs"]
    for job in jobs:
        del job["kubernetes_sd_configs"]
        job["static_configs"] = discovered() + discovered("Succeeded")
    return list(jobs)


def operator_jobs() -> list[Values]:
    """
    Return the jobs that the Prometheus Operator generates from the fields of our PodMonitor.

    pkg/prometheus/promcfg.go: generatePodMonitorConfig (0.86).
    """
    monitor = load("pod-monitor.yaml")
    jobs = []
    for number, endpoint in enumerate(monitor["spec"]["podMetricsEndpoints"]):
        rules: list[Values] = [
            {
                "source_labels": ["__meta_kubernetes_pod_phase"],
                "regex": "(Failed|Succeeded)",
                "action": "drop",
            }
        ]
        if "port" in endpoint:
            source = ["__meta_kubernetes_pod_container_port_name"]
            rules.append({"source_labels": source, "regex": endpoint["port"], "action": "keep"})
        for label, name in (
            ("namespace", "namespace"),
            ("pod_container_name", "container"),
            ("pod_name", "pod"),
        ):
            source = [f"__meta_kubernetes_{label}"]
            rules.append({"source_labels": source, "target_label": name})
        names = {"sourceLabels": "source_labels", "targetLabel": "target_label"}
        rules += [
            {names.get(key, key): value for key, value in rule.items()}
            for rule in endpoint.get("relabelings", [])
        ]
        jobs.append(
            {
                "job_name": f"podMonitor/airflow/{monitor['metadata']['name']}/{number}",
                "scrape_interval": endpoint["interval"],
                "relabel_configs": rules,
                "static_configs": discovered() + discovered("Succeeded"),
            }
        )
    return jobs


def test_prometheus_scrapes_every_sidecar_once_and_nothing_else(tmp_path: Path) -> None:
    skip_without_prometheus()
    ways = {"plain": scrape_jobs(), "operator": operator_jobs()}
    for way, jobs in ways.items():
        for job in jobs:
            job["relabel_configs"].append({"target_label": "way", "replacement": way})

    with Prometheus(
        tmp_path, {"scrape_configs": [*ways["plain"], *ways["operator"]]}
    ) as prometheus:
        wait_until(lambda: len(prometheus.targets()) >= 2 * len(EXPECTED), "all are known", 60)
        targets = prometheus.targets()

    for way in ways:
        found = [
            (labels["pod"], labels["container"], int(url.rpartition(":")[2].partition("/")[0]))
            for labels, url in ((target["labels"], target["scrapeUrl"]) for target in targets)
            if labels["way"] == way
        ]
        assert sorted(EXPECTED) == sorted(found), way
    assert {"airflow"} == {target["labels"]["namespace"] for target in targets}


def test_scraped_ports_match_the_values_and_the_sidecars() -> None:
    declared = {
        (port["name"], port["containerPort"])
        for name in files.PASTED
        for port in _ports(files.load(name))
    }
    endpoints = load("pod-monitor.yaml")["spec"]["podMetricsEndpoints"]

    assert PORTS == dict(declared)
    assert PORTS.keys() == {endpoint["port"] for endpoint in endpoints if "port" in endpoint}


def _ports(node: Any) -> Iterator[Values]:
    if isinstance(node, dict):
        yield from node.get("ports", [])
        node = list(node.values())
    if isinstance(node, list):
        for inner in node:
            yield from _ports(inner)
