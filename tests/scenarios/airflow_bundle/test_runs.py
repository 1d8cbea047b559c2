"""Runs of a live Airflow 3 with the LocalExecutor: each task runs the code of its run's version."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from tests.conftest import Counts
from tests.scenarios.airflow_bundle.live import Live, open_live
from tests.support.airflow import ROOT, Airflow
from tests.support.airflow_runs import TASKS, Notes
from tests.support.asking import STORE
from tests.support.daemon import Daemon
from tests.support.databases import Postgres, missing_programs
from tests.support.fake_s3 import FakeS3
from tests.support.releases import Release
from tests.support.shelf import Shelf, release_daemon
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(7_200)
# The volume keeps nothing that is not in use or asked for.
SETTINGS: dict[str, str | None] = {
    "S3_SYNC_LAYOUT": "snapshot",
    "S3_SYNC_RETAIN_COUNT": "0",
    "S3_SYNC_RETAIN_FOR": "0",
    "S3_SYNC_KEEP_ASKED": "1",
}


@dataclass
class World:
    """A bucket, a sidecar and an Airflow."""

    shelf: Shelf
    daemon: Daemon
    live: Live
    target: Path
    home: Path

    def publish(self, mark: str) -> Release:
        """Publish a release, and wait until Airflow has it."""
        release = self.shelf.publish(self.live.notes.files_of(mark))
        self.follow(release)
        return release

    def follow(self, release: Release) -> None:
        """Wait until Airflow has what is current now."""
        self.daemon.sync()
        self.live.wait_for_version(release.revision)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    if missing := missing_programs("postgres", "initdb", "psql", "pg_dump"):
        pytest.skip(missing)
    airflow = Airflow.install_or_skip("3")
    home = tmp_path_factory.mktemp("runs")
    target = home / "dags"
    with ExitStack() as stack:
        s3 = stack.enter_context(FakeS3())
        server = stack.enter_context(Postgres())
        notes = stack.enter_context(Notes())
        database = airflow.new_postgres(server, home)
        live = open_live(airflow, database, home, target / "current", notes)
        daemon = stack.enter_context(release_daemon(s3, target, SETTINGS))
        stack.enter_context(live.components)
        world = World(Shelf.at(s3), daemon, live, target, home)
        first = world.shelf.publish(world.live.notes.files_of("start"))
        daemon.until_synced()
        live.start()
        live.wait_for_version(first.revision)
        live.unpause()
        yield world


def test_a_run_ends_on_the_code_that_it_began_with(world: World) -> None:
    """Publish, run, publish in between; clear a task of the old run; roll back."""
    live = world.live
    old = world.publish("A")
    run = world.live.begin()
    new = world.publish("B")
    world.live.notes.let_go(run)
    assert "success" == live.wait_for(run, "success", "failed")
    assert old.revision == live.version_of(run)
    assert [(task, "A") for task in TASKS] == world.live.notes.of(run)

    following = world.live.begin()
    world.live.notes.let_go(following)
    assert "success" == live.wait_for(following, "success", "failed")
    assert new.revision == live.version_of(following)
    assert [(task, "B") for task in TASKS] == world.live.notes.of(following)

    world.daemon.sync()
    wait_until(lambda: not (world.target / STORE / old.revision).exists(), "A is pruned here")
    live.clear(run, "third")
    wait_until(lambda: len(world.live.notes.of(run)) == 4, "third ran again", 240)
    assert ("third", "A") == world.live.notes.of(run)[-1]
    assert "success" == live.wait_for(run, "success", "failed")

    world.shelf.point_to(old)
    world.follow(old)
    back = world.live.begin()
    world.live.notes.let_go(back)
    assert "success" == live.wait_for(back, "success", "failed")
    assert [(task, "A") for task in TASKS] == world.live.notes.of(back)


def test_the_documented_query_names_what_s3_must_keep(world: World) -> None:
    """Whatever a run can be cleared to, and what Airflow parsed last."""
    old = world.publish("of a run")
    run = world.live.begin()
    world.live.notes.let_go(run)
    world.live.wait_for(run, "success")
    new = world.publish("of no run")
    page = (ROOT / "docs/how-to/keep-runs-on-their-version.md").read_text()
    (query,) = re.findall(r"```sql\n(.*?);\n```", page, re.DOTALL)

    named = {version for (version,) in world.live.database.query(query)}

    assert {old.revision, new.revision} <= named <= world.shelf.releases.keys()


def test_a_version_that_is_gone_fails_the_task_and_runs_nothing_else(world: World) -> None:
    live = world.live
    old = world.publish("pruned")
    run = world.live.begin()
    world.live.notes.let_go(run)
    live.wait_for(run, "success")
    world.publish("newer")
    world.publish("newest")
    for name in old.objects():
        if name.startswith("releases/"):
            world.shelf.remove(name)
    world.daemon.sync()
    wait_until(lambda: not (world.target / STORE / old.revision).exists(), "it is pruned here")

    live.clear(run, "third")

    assert "failed" == live.wait_for(run, "failed")
    assert [(task, "pruned") for task in TASKS] == world.live.notes.of(run)
    logs = "".join(path.read_text() for path in world.home.rglob("*.log"))
    assert f"version {old.revision} of bundle 'dags' is gone" in logs


def test_whatever_happens_in_between_each_task_runs_its_version(
    world: World, counts: Counts
) -> None:
    """Publishes, rollbacks, kills of the sidecar and of the dag-processor, while runs run."""
    live, random = world.live, Random(20)
    current = world.publish("0")
    known = {current.revision: "0"}
    for number in range(1, counts.runs + 1):
        run = world.live.begin()
        mark = known[live.version_of(run)]
        match random.randrange(4):
            case 0:
                current = world.shelf.publish(world.live.notes.files_of(str(number)))
                known[current.revision] = str(number)
            case 1:
                current = world.shelf.releases[random.choice(list(known))]
                world.shelf.point_to(current)
            case 2:
                world.daemon.kill()
                world.daemon.start().until_synced()
            case _:
                live.components.restart("dag-processor")
        world.live.notes.let_go(run)
        world.daemon.sync()
        assert "success" == live.wait_for(run, "success", "failed"), run
        assert [(task, mark) for task in TASKS] == world.live.notes.of(run)
        live.wait_for_version(current.revision)
