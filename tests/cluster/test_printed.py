"""
Pods start with a dozen outputs of `make values`, which cover every pair of its words.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chart.rendered.printed import DOZEN, kinds
from tests.chart.rules import pods
from tests.cluster.stack import World, seen_by, stack

YOUR_VALUES = str(Path(__file__).with_name("your-values.yaml"))


@pytest.mark.parametrize("name", DOZEN)
def test_printed_values_start_and_show_their_dags(
    name: str, outside: dict[bool, World], run: str
) -> None:
    choice = DOZEN[name]
    world = outside[choice["SOURCE"] == "release"]
    user = (
        f"sidecars.bucket={world.bucket}",
        f"sidecars.gitSync.repo={world.repository}",
        "sidecars.gitSync.ref=main",
    )
    with stack(world, f"printed-{[*DOZEN].index(name)}-{run}", (*user, YOUR_VALUES, name)) as place:
        found = place.pods()
        assert kinds(choice) == {one: pods.kinds(some[0].spec) for one, some in found.items()}
        consumers = place.consumers()
        assert len(kinds(choice).keys() - {"webserver", "api-server"}) == len(consumers)
        for pod, container in consumers:
            if "s3-sync" not in {one["name"] for one in pod.spec["containers"]}:
                assert '{"revision": 1}' == seen_by(pod, container), pod.story()

        def all_see() -> bool:
            return {'{"revision": 1}'} == {seen_by(*one) for one in consumers}

        assert place.namespace.wait_until(all_see, "every pod sees revision 1")
        place.pods()  # no pod has restarted since
