"""
Pods start with some outputs of `make values`, which cover every pair of its words.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chart import pods
from tests.chart.printed import FEW
from tests.chart.stacks import EXPECTED
from tests.cluster.stack import World, seen_by, stack

YOUR_VALUES = str(Path(__file__).with_name("your-values.yaml"))


@pytest.mark.parametrize("name", FEW)
def test_printed_values_start_and_show_their_dags(
    name: str, outside: dict[bool, World], run: str
) -> None:
    expected = EXPECTED[(name,)]
    world = outside[FEW[name]["SOURCE"] == "release"]
    user = (f"sidecars.bucket={world.bucket}", f"sidecars.gitSync.repo={world.repository}")
    with stack(world, f"printed-{[*FEW].index(name)}-{run}", (*user, YOUR_VALUES, name)) as place:
        found = place.pods()
        assert expected == {one: pods.kinds(some[0].spec) for one, some in found.items()}
        if not FEW[name]["SOURCE"]:
            return
        consumers = place.consumers()
        assert len(expected.keys() - {"webserver", "api-server"}) == len(consumers)
        for pod, container in consumers:
            if "s3-sync" not in {one["name"] for one in pod.spec["containers"]}:
                assert '{"revision": 1}' == seen_by(pod, container), pod.story()

        def all_see() -> bool:
            return {'{"revision": 1}'} == {seen_by(*one) for one in consumers}

        assert place.namespace.wait_until(all_see, "every pod sees revision 1")
        place.pods()  # no pod has restarted since
