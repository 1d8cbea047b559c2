"""
Airflow's containers see the DAGs that are in S3.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.cluster.conftest import BUCKETS
from tests.cluster.stack import Stack, World, publish, seen_by, upload

READERS = ["base", "dag-processor", "scheduler", "triggerer"]


@pytest.mark.parametrize(("name", "write"), [("dev", upload), ("prd", publish)])
def test_every_consumer_sees_the_dags_and_their_changes_except_running_task_pods(
    name: str,
    write: Callable[[World, str, int], None],
    world: World,
    request: pytest.FixtureRequest,
) -> None:
    place: Stack = request.getfixturevalue(name)
    consumers = place.consumers()
    following = [one for one in consumers if one[1] != "base"]

    assert READERS == sorted({name for _, name in consumers})
    (late,) = (one for one in consumers if one[1] == "scheduler")  # starts without DAGs
    for pod, container in consumers:
        if pod is not late[0]:
            assert '{"revision": 1}' == seen_by(pod, container), pod.story()
    assert place.namespace.wait_until(
        lambda: '{"revision": 1}' == seen_by(*late), "the scheduler sees revision 1"
    )

    write(world, BUCKETS[name], 2)

    def all_see(number: int) -> bool:
        return {f'{{"revision": {number}}}'} == {seen_by(*one) for one in following}

    assert place.namespace.wait_until(lambda: all_see(2), "every pod sees revision 2")
    (task,) = (one for one in consumers if one[1] == "base")
    assert '{"revision": 1}' == seen_by(*task)
