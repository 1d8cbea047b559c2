"""
Schemas and checks for the files in charts-snippets/monitoring.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from jsonschema import Draft202012Validator

from docs.__main__ import metrics
from docs.sidecars import SIDECARS as DOCUMENTED
from sidecar_runtime import DOCS
from tests.chart.files import SNIPPETS
from tests.chart.rules.custom import DURATION, TEXT, Schema, every, record
from tests.chart.rules.sidecars import SIDECARS, Values

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

_LABEL: Schema = {"type": "string", "pattern": "^__meta_kubernetes_[a-z_]+$"}
_METADATA = record({"name": TEXT, "labels": record({"release": TEXT})})
_KEEP = record({"sourceLabels": every(_LABEL), "regex": TEXT, "action": {"enum": ["keep", "drop"]}})
_SET = record({"sourceLabels": every(_LABEL), "targetLabel": TEXT, "replacement": TEXT})
_ENDPOINT = {
    "oneOf": [
        record({"port": TEXT, "interval": DURATION}),
        record({"interval": DURATION, "relabelings": every({"oneOf": [_KEEP, _SET]})}),
    ]
}
_RUNBOOK = {"type": "string", "pattern": f"^{re.escape(DOCS)}/how-to/[a-z-]+.md#[a-z]+$"}
_RULE = record(
    {
        "alert": {"type": "string", "pattern": "^Airflow[A-Za-z]+$"},
        "expr": TEXT,
        "labels": record({"severity": {"enum": ["info", "warning", "critical"]}}),
        "annotations": record({"runbook_url": _RUNBOOK, "summary": TEXT, "description": TEXT}),
    },
    **{"for": DURATION},
)
_SHARE = record(
    {"record": {"type": "string", "pattern": "^airflow_sidecars:[a-z]+:ratio$"}, "expr": TEXT}
)
_RELABEL = record(
    {"source_labels": every(_LABEL)},
    regex=TEXT,
    action={"enum": ["keep", "drop"]},
    target_label=TEXT,
    replacement=TEXT,
) | {"anyOf": [{"required": ["target_label"]}, {"required": ["action", "regex"]}]}
_DISCOVERY = record({"role": {"const": "pod"}, "namespaces": record({"names": every(TEXT)})})
_JOB = record(
    {
        "job_name": TEXT,
        "scrape_interval": DURATION,
        "kubernetes_sd_configs": every(_DISCOVERY),
        "relabel_configs": every(_RELABEL),
    }
)
_ANNOTATIONS = record(
    {
        "prometheus.io/scrape": {"const": "true"},
        "prometheus.io/path": {"const": "/metrics"},
        "prometheus.io/port": {"enum": [str(one.port) for one in SIDECARS.values()]},
    }
)
_COMPONENT = record({"podAnnotations": _ANNOTATIONS})


def _operators(name: str, spec: Schema) -> Schema:
    head = {"apiVersion": {"const": "monitoring.coreos.com/v1"}, "kind": {"const": name}}
    return record({**head, "metadata": _METADATA, "spec": spec})


SCHEMAS: Mapping[str, Schema] = {
    "pod-annotations.yaml": record(
        {
            "dagProcessor": _COMPONENT,
            "triggerer": _COMPONENT,
            "workers": record({"celery": _COMPONENT}),
        }
    ),
    "pod-monitor.yaml": _operators(
        "PodMonitor", record({"selector": {"const": {}}, "podMetricsEndpoints": every(_ENDPOINT)})
    ),
    "prometheus-rule.yaml": _operators(
        "PrometheusRule",
        record({"groups": every(record({"name": TEXT, "rules": every(_RULE)}))}),
    ),
    "slo-rule.yaml": _operators(
        "PrometheusRule",
        record({"groups": every(record({"name": TEXT, "rules": every(_SHARE)}))}),
    ),
    "scrape-config.yaml": record({"scrape_configs": every(_JOB)}),
}


def load(name: str) -> Values:
    said: Values = yaml.safe_load((MONITORING / name).read_text())
    return said


def complaints(name: str, said: Values) -> list[str]:
    """
    Report fields of a file that its schema does not define, or whose values it refuses.
    """
    errors = Draft202012Validator(SCHEMAS[name]).iter_errors(said)
    return [f"{name}: {error.json_path}: {error.message}" for error in errors]


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


def renamed(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """
    Yield the path of each key with a copy of the maps and lists in which that key is renamed.
    """
    if isinstance(node, dict):
        for key, value in node.items():
            yield f"{path}.{key}", {(f"{k}X" if k == key else k): v for k, v in node.items()}
            for where, inner in renamed(value, f"{path}.{key}"):
                yield where, {**node, key: inner}
    elif isinstance(node, list):
        for number, value in enumerate(node):
            for where, inner in renamed(value, f"{path}[{number}]"):
                yield where, [*node[:number], inner, *node[number + 1 :]]
