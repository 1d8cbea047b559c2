"""
The network policies, beside those of the chart, allow only what the sidecars need.
"""

from __future__ import annotations

import pytest

from tests.chart import files
from tests.chart.rendering import CAN_RENDER, HOW_TO_RENDER, component, rendered, rendered_pods
from tests.chart.sidecars import SIDECARS, Values
from tests.chart.stacks import DEV, PRD, PRD_2, Stack
from tests.chart.traffic import Pod, Traffic, admits

PROMETHEUS = Pod({"app": "prometheus"}, "monitoring")
DNS = Pod({"k8s-app": "kube-dns"}, "kube-system")
STRANGER = Pod({"app": "stranger"}, "default")
LOAD_BALANCER, KDC, DATABASE, S3 = "10.0.5.7", "10.0.10.5", "10.0.20.5", "52.219.1.1"
OURS = "network/network-policy.yaml"


def policies_select(labels: Values) -> bool:
    """
    Return whether the network policies and the security groups apply to a pod with these labels.
    """
    selectors = [
        policy["spec"]["podSelector"]
        for name in (OURS, "network/security-group-policy.yaml")
        for policy in files.load_objects(name)
    ]
    return all(
        one["matchLabels"].items() <= labels.items()
        and all(labels[it["key"]] in it["values"] for it in one.get("matchExpressions", []))
        for one in selectors
    )


def test_only_prometheus_may_connect_to_the_sidecar_ports() -> None:
    ingress, _ = files.load_objects(OURS)
    (rule,) = ingress["spec"]["ingress"]
    (source,) = rule["from"]

    assert {("TCP", one.port) for one in SIDECARS.values()} == {
        (one["protocol"], one["port"]) for one in rule["ports"]
    }
    assert {"kubernetes.io/metadata.name": "monitoring"} == source["namespaceSelector"][
        "matchLabels"
    ]


@pytest.mark.skipif(not CAN_RENDER, reason=HOW_TO_RENDER)
@pytest.mark.parametrize("stack", [DEV, PRD, PRD_2], ids=" ".join)
def test_network_policies_allow_only_required_connections(stack: Stack) -> None:
    policies = [one for one in rendered(stack) if one["kind"] == "NetworkPolicy"]
    policies += files.load_objects(OURS)
    found = {component(pod): Pod(pod["metadata"]["labels"]) for pod in rendered_pods(stack)}
    web = found.get("api-server") or found["webserver"]
    task, triggerer, statsd = (found[name] for name in ("task pod", "triggerer", "statsd"))
    dag_processor, scheduler = found["dag-processor"], found["scheduler"]
    must: list[Traffic] = [
        *[(dag_processor, PROMETHEUS, ("TCP", 9811)), (task, PROMETHEUS, ("TCP", 9813))],
        *[(web, PROMETHEUS, ("TCP", 9812)), (web, LOAD_BALANCER, ("TCP", 8080))],  # type: ignore[list-item]
        *[(web, one, ("TCP", 8080)) for one in (task, triggerer, dag_processor, scheduler)],
        *[(triggerer, web, ("TCP", 8794)), (statsd, scheduler, ("UDP", 9125))],
    ]
    must_not: list[Traffic] = [
        *[(web, STRANGER, ("TCP", 8080)), (dag_processor, STRANGER, ("TCP", 9811))],
        *[(scheduler, PROMETHEUS, ("TCP", 8793)), (triggerer, LOAD_BALANCER, ("TCP", 8794))],  # type: ignore[list-item]
    ]
    may_ask: list[Traffic] = [
        *[(one, DNS, ("UDP", 53)) for one in (task, web, scheduler)],
        *[(task, S3, ("TCP", 443)), (dag_processor, S3, ("TCP", 443)), (web, S3, ("TCP", 443))],
        *[(task, KDC, ("UDP", 88)), (triggerer, KDC, ("TCP", 88))],
        *[(web, DATABASE, ("TCP", 5432)), (scheduler, DATABASE, ("TCP", 5432))],
        *[(task, web, ("TCP", 8080)), (scheduler, statsd, ("UDP", 9125))],
        (dag_processor, "169.254.170.23", ("TCP", 80)),
        *[(task, "169.254.20.10", ("UDP", 53)), (task, "169.254.20.10", ("TCP", 53))],
    ]
    may_not_ask: list[Traffic] = [
        (task, "169.254.20.10", ("TCP", 80)),
        *[(task, "169.254.169.254", ("TCP", 80)), (task, "169.254.169.254", ("TCP", 443))],
        *[(task, STRANGER, ("TCP", 443)), (task, "52.219.1.1", ("TCP", 80))],  # type: ignore[list-item]
    ]

    assert [] == [one for one in must if not _admits(policies, "Ingress", one)]
    assert [] == [one for one in must_not if _admits(policies, "Ingress", one)]
    assert [] == [one for one in may_ask if not _admits(policies, "Egress", one)]
    assert [] == [one for one in may_not_ask if _admits(policies, "Egress", one)]


def _admits(policies: list[Values], direction: str, traffic: Traffic) -> bool:
    return admits(policies, traffic[0], direction, *traffic[1:])
