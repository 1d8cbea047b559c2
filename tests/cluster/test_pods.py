"""
Every pod becomes ready with the right sidecars.
"""

from __future__ import annotations

from tests.chart import pods
from tests.cluster.stack import Stack, ours

DAGS, TICKETS = {"s3-sync": "native"}, {"kerberos": "native"}
SIDECARS = {
    "dag-processor": DAGS,
    "scheduler": {"s3-sync": "extra"},
    "triggerer": DAGS | TICKETS,
    "api-server": {"sync-perm": "extra"},
    "task pod": {"s3-sync": "init", "kerberos": "native"},
}


def test_every_pod_becomes_ready_with_its_sidecars_without_a_restart(environment: Stack) -> None:
    found = environment.pods()

    assert SIDECARS == {name: pods.kinds(some[0].spec) for name, some in found.items()}


def test_sidecar_containers_are_applied_as_the_chart_renders_them(environment: Stack) -> None:
    rendered, applied = ours(environment.rendered), ours(environment.objects)

    assert rendered.keys() == applied.keys()
    for name, before in rendered.items():
        after = dict(applied[name])
        for key in ("env", "volumeMounts"):
            assert before[key] == after.pop(key)[: len(before[key])]
        assert {key: before[key] for key in before.keys() - {"env", "volumeMounts"}} == after
