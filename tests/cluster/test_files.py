"""
Every values file starts, and what `make values` prints for every pair of its words.
"""

import pytest

from sidecar_values.files import PASTED
from tests.chart import pods, printed
from tests.chart.printed import FEW
from tests.chart.stacks import AS_PODS, WHOLE, asked
from tests.chart.stacks import Stack as Names
from tests.cluster.conftest import SERVICE
from tests.cluster.kubectl import Pod
from tests.cluster.stack import (
    PRINCIPAL,
    REALM,
    YOUR_VALUES,
    Stack,
    World,
    seen_by,
    stack,
)

# The stacks that are started, of all that are rendered.
STARTED: tuple[Names, ...] = (
    ("s3-sync.native.yaml",),
    (AS_PODS, "s3-sync-and-kerberos.yaml", "sync-perm.extra.yaml"),
    (AS_PODS, "kerberos.native.yaml"),
    ("sync-perm.extra.yaml",),
    ("git-sync-wrapper.chart.yaml",),
    (AS_PODS, "git-sync-wrapper.native.yaml"),
    *WHOLE,
    *((name,) for name in FEW),
)


def test_every_file_to_paste_is_started() -> None:
    assert {*PASTED} <= {name for names in STARTED for name in names}


@pytest.mark.parametrize("names", STARTED, ids=" ".join)
def test_pods_become_ready_with_their_sidecars_dags_and_tickets(
    names: Names, outside: dict[bool, World], run: str
) -> None:
    is_whole = "values.yaml" in names
    world = outside["SOURCE=release" in names[0]]
    own = (
        f"sidecars.bucket={world.bucket}",
        f"sidecars.gitSync.repo={world.repository}",
        f"sidecars.endpoint={world.s3.endpoint}",
    )
    users = () if is_whole else (*(own if names[0] in FEW else ()), YOUR_VALUES)
    # Each Fargate pod requests a node of its own, and the one node here has room for
    # one.
    only = frozenset({"dag-processor"}) if "examples/fargate.yaml" in names else None
    name = f"files-{STARTED.index(names)}-{run}"
    with stack(world, name, (*users, *names), only) as place:
        found = place.pods()
        kinds = {name: pods.kinds(some[0].spec) for name, some in found.items()}
        wanted = {
            one: some
            for one, some in printed.kinds(asked(names)).items()
            if only is None or one in only
        }
        assert wanted == {one: some for one, some in kinds.items() if some}
        _see_dags(place)
        for some in found.values():
            _see_tickets(some)
        place.pods()  # no pod has restarted since


def _see_dags(place: Stack) -> None:
    consumers = place.consumers()

    def all_see() -> bool:
        return all(seen_by(*one).startswith('{"revision": ') for one in consumers)

    assert place.namespace.wait_until(all_see, "every pod sees DAGs")


def _see_tickets(some: list[Pod]) -> None:
    for pod in some:
        if "kerberos" in pods.kinds(pod.spec):
            airflow = pod.spec["containers"][0]["name"]

            def has_one(pod: Pod = pod, airflow: str = airflow) -> bool:
                return pod.namespace.attempt(
                    "exec", pod.name, f"--container={airflow}", "--", "kvno", SERVICE
                ).startswith(f"{SERVICE}@{REALM}: kvno = ")

            assert pod.namespace.wait_until(has_one, f"{pod.name} has a ticket")
            assert f"{PRINCIPAL}@{REALM}" in pod.execute(airflow, "klist")
