"""
Evaluates NetworkPolicies by the rules of Kubernetes, limited to the fields that ours use.

A pod is open in a direction if no policy selects it there; otherwise, a rule must admit traffic.
https://kubernetes.io/docs/concepts/services-networking/network-policies/
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from tests.chart.sidecars import Values

NAME_LABEL = "kubernetes.io/metadata.name"


@dataclass(frozen=True)
class Pod:
    """
    A pod as policies see it.
    """

    labels: Values
    namespace: str = "airflow"


Peer = Pod | str
Traffic = tuple[Pod, Peer, tuple[str, int]]
"""A pod, its peer (another pod or an IP address), and the protocol and port."""


def admits(
    policies: Sequence[Values], pod: Pod, direction: str, peer: Peer, port: tuple[str, int]
) -> bool:
    """
    Return whether a peer may connect to a pod (Ingress), or a pod to a peer (Egress).
    """
    selecting = [
        one["spec"]
        for one in policies
        if direction in one["spec"]["policyTypes"] and _selects(one["spec"]["podSelector"], pod)
    ]
    rules = [rule for spec in selecting for rule in spec.get(direction.lower()) or []]
    peers = "from" if direction == "Ingress" else "to"
    return not selecting or any(
        any(_is(one, peer, pod.namespace) for one in rule[peers])
        and port in [(one.get("protocol", "TCP"), one["port"]) for one in rule["ports"]]
        for rule in rules
    )


def _selects(selector: Values, pod: Pod) -> bool:
    assert selector.keys() <= {"matchLabels", "matchExpressions"}
    return selector.get("matchLabels", {}).items() <= pod.labels.items() and all(
        one["operator"] == "In" and pod.labels.get(one["key"]) in one["values"]
        for one in selector.get("matchExpressions", [])
    )


def _is(rule: Values, peer: Peer, namespace: str) -> bool:
    if isinstance(peer, str):
        address, block = ipaddress.ip_address(peer), rule.get("ipBlock")
        return (
            block is not None
            and address in ipaddress.ip_network(block["cidr"])
            and not any(address in ipaddress.ip_network(one) for one in block.get("except", []))
        )
    if "ipBlock" in rule:
        return False
    is_near = (
        _selects(rule["namespaceSelector"], Pod({NAME_LABEL: peer.namespace}))
        if "namespaceSelector" in rule
        else peer.namespace == namespace
    )
    return is_near and _selects(rule.get("podSelector", {}), peer)
