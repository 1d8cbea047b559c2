"""
What `make values` prints starts: a dozen combinations, which have every pair of words.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chart import pods
from tests.chart.printed import DOZEN, kinds
from tests.cluster.stack import World, publish, revision, seen_by, stack, upload
from tests.support.git_server import GitServer

YOUR_VALUES = str(Path(__file__).with_name("your-values.yaml"))
LISTING, RELEASE = "printed-listing", "printed-release"


@pytest.fixture(scope="module")
def repository(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """
    Revision 1 in each of the three sources; the address of the one in git.
    """
    folder: Path = tmp_path_factory.mktemp("git")
    for bucket, write in ((LISTING, upload), (RELEASE, publish)):
        world.s3.client().create_bucket(Bucket=bucket)
        write(world, bucket, 1)
    with GitServer(folder, host=os.environ["CLUSTER_HOST"]) as server:
        server.repository().commit({f"dags/{path}": text for path, text in revision(1).items()})
        yield server.url()


@pytest.mark.parametrize("name", DOZEN)
def test_what_make_values_prints_starts_and_shows_its_dags(
    name: str, world: World, run: str, repository: str
) -> None:
    choice = DOZEN[name]
    user = (
        f"sidecars.bucket={RELEASE if choice['SOURCE'] == 'release' else LISTING}",
        f"sidecars.gitSync.repo={repository}",
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
        restarts = [
            one.restarts for some in place.pods().values() for one in some[0].containers.values()
        ]
        assert {0} == {*restarts}
