"""
What the tests know about the files in charts-snippets/monitoring.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import yaml

from docs.__main__ import metrics
from docs.sidecars import SIDECARS as DOCUMENTED
from tests.chart.files import SNIPPETS
from tests.chart.sidecars import Values

MONITORING = SNIPPETS / "monitoring"
YAML_FILES = sorted(path.name for path in MONITORING.glob("*.yaml"))
DASHBOARD = MONITORING / "grafana-dashboard.json"
# The port of git-sync-wrapper; as a drop-in, it runs in a container that declares no port.
GIT_SYNC_PORT = 9814
FOREIGN_METRICS = {
    "up",
    "kube_pod_container_status_restarts_total",
    "kube_pod_init_container_status_restarts_total",
    "kube_pod_container_status_waiting_reason",
    "kube_pod_deletion_timestamp",
    "kube_pod_init_container_status_waiting_reason",
}


def load(name: str) -> Values:
    said: Values = yaml.safe_load((MONITORING / name).read_text())
    return said


def known_metrics() -> set[str]:
    """
    Return the sidecars' metrics, with the names that queries use, and the foreign metrics.
    """
    tables = "".join(metrics(sidecar) for sidecar in DOCUMENTED)
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|", tables, re.MULTILINE)
    parts = {"histogram": ("_bucket",), "summary": ("_sum", "_count")}
    return FOREIGN_METRICS | {
        f"{name}{part}" for name, kind in rows for part in parts.get(kind, ("",))
    }


def named_metrics(expression: str) -> set[str]:
    """
    Return the metrics in an expression.
    """
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]|\b(by|on|group_left)\s*\([^)]*\)", " ", expression)
    return {
        word
        for word in re.findall(r"\b[a-z][a-z0-9_]*\b(?!\s*\()", bare)
        if "_" in word or word == "up"
    } - {"group_left"}


def queries(dashboard: Values) -> Iterator[tuple[str, str]]:
    """
    Yield the title of every panel with each of its expressions.
    """
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
