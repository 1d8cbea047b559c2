"""
What is in S3 is what Airflow finds in its folder.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.cluster.conftest import BUCKETS
from tests.cluster.stack import Stack, World, publish, seen_by, upload

READERS = ["base", "dag-processor", "scheduler", "triggerer"]


def test_dags_are_visible_to_every_consumer(environment: Stack) -> None:
    consumers = environment.consumers()

    assert READERS == sorted({name for _, name in consumers})
    (late,) = (one for one in consumers if one[1] == "scheduler")  # starts without them
    for pod, name in consumers:
        if pod is not late[0]:
            assert '{"revision": 1}' == seen_by(pod, name), pod.story()
    assert environment.namespace.wait_until(
        lambda: '{"revision": 1}' == seen_by(*late), "the scheduler sees revision 1"
    )


@pytest.mark.parametrize(("name", "write"), [("dev", upload), ("prd", publish)])
def test_a_change_arrives_in_every_pod_that_follows(
    name: str,
    write: Callable[[World, str, int], None],
    world: World,
    request: pytest.FixtureRequest,
) -> None:
    """
    A task pod keeps the DAGs that it was started with.
    """
    place: Stack = request.getfixturevalue(name)
    consumers = place.consumers()
    following = [one for one in consumers if one[1] != "base"]

    write(world, BUCKETS[name], 2)

    def all_see(number: int) -> bool:
        return {f'{{"revision": {number}}}'} == {seen_by(*one) for one in following}

    assert place.namespace.wait_until(lambda: all_see(2), "every pod sees revision 2")
    (task,) = (one for one in consumers if one[1] == "base")
    assert '{"revision": 1}' == seen_by(*task)
