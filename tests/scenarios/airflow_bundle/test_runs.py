"""Runs of a live Airflow 3: each task runs the code of its run's version."""

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from demo.airflow.components import Components
from tests import ROOT
from tests.conftest import Counts
from tests.support.airflow.asking import STORE
from tests.support.airflow.databases import Postgres, skip_without_postgres
from tests.support.airflow.installed import Airflow
from tests.support.airflow.runs import TASKS, Notes, Runs
from tests.support.aws.fake_s3 import FakeS3
from tests.support.s3_sync.shelf import Shelf, release_daemon
from tests.support.waiting import wait_until

# A live Airflow takes a minute of CPU; the tests of the bundle itself do not need it.
pytestmark = [
    pytest.mark.timeout(7_200),
    pytest.mark.usefixtures("only_in_full"),
]
# Admin rights, fast detection of dead workers.
SETTINGS = """
CORE__EXECUTOR LocalExecutor
CORE__AUTH_MANAGER airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager
CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS True
CORE__PARALLELISM 8
CORE__DEFAULT_TASK_RETRY_DELAY 0
SCHEDULER__SCHEDULER_HEARTBEAT_SEC 1
SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD 15
SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL 5
SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC 1
SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT 45
SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL 2
"""
# For tasks whose worker is killed.
RETRIES = {"default_args": "{'retries': 3}"}
# Only the current version, those in use, and one requested.
KEPT = {
    "S3_SYNC_RETAIN_COUNT": "0",
    "S3_SYNC_RETAIN_FOR": "0",
    "S3_SYNC_KEEP_REQUESTED": "1",
}


class Releases:
    """A source of versions, which are releases, with a s3-sync."""

    def __init__(self, home: Path, stack: ExitStack) -> None:
        s3 = stack.enter_context(FakeS3())
        self.shelf = Shelf(s3)
        target = home / "dags"
        told = {**KEPT, "S3_SYNC_LAYOUT": "snapshot"}
        self.store = target / STORE
        self.link = target / "current"
        self.shelf.publish({"none.py": b""})
        # Only `follow` triggers later cycles. Without a release, the first cycle would
        # fail; its retry could prune a version between two tasks of a run, which would
        # request and keep it.
        self.daemon = stack.enter_context(
            release_daemon(s3, target, told)
        ).until_synced()

    def publish(self, files: Mapping[str, bytes]) -> str:
        """Publish a version; return its name."""
        return self.shelf.publish(files).revision

    def show(self, version: str) -> None:
        """Publish an older version again."""
        self.shelf.point_to(self.shelf.releases[version])

    def follow(self) -> None:
        """Wait until the volume has the current version."""
        self.daemon.sync()
        self.daemon.until_synced()

    def restart(self) -> None:
        self.daemon.kill()
        self.daemon.start().until_synced()


@dataclass
class World:
    """A source of versions with its sidecar, and an Airflow 3 that reads its volume."""

    source: Releases
    live: Runs
    components: Components
    home: Path

    def publish(self, mark: str, **options: str) -> str:
        """
        Publish a version of a DAG with these options, and wait until Airflow has parsed
        it.
        """
        version = self.source.publish(self.live.notes.files_of(mark, **options))
        self.source.follow()
        self.live.wait_for_version(version)
        # The new version may be recorded for files that were parsed before.
        self.live.wait_for_description(mark)
        return version

    def end(self, run: str) -> None:
        """Let a run finish, and check that it succeeds."""
        self.live.notes.let_go(run)
        assert "success" == self.live.wait_for(run, "success", "failed"), run

    def is_pruned(self, version: str) -> bool:
        """Run a cycle; return whether the volume has no copy of a version."""
        self.source.follow()
        return not (self.source.store / version).exists()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    skip_without_postgres()
    airflow = Airflow.install_or_skip("3")
    home = tmp_path_factory.mktemp("runs")
    with ExitStack() as stack:
        server = stack.enter_context(Postgres())
        notes = stack.enter_context(Notes())
        versions = Releases(home, stack)
        database = airflow.new_postgres(server, home)
        told = {
            **dict(
                f"AIRFLOW__{line}".split() for line in SETTINGS.strip().splitlines()
            ),
            "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": str(home / "bundles"),
        }
        components = Components(
            airflow, database.url, home / "airflow", versions.link, told
        )
        stack.enter_context(components)
        live = Runs(components.endpoint, database, notes)
        first = versions.publish(notes.files_of("start"))
        versions.follow()
        components.start()
        components.wait_until_answers()
        live.wait_for_version(first)
        live.unpause()
        yield World(versions, live, components, home)


def test_a_cleared_task_runs_the_version_of_its_run_which_was_pruned(
    world: World,
) -> None:
    live = world.live
    old = world.publish("A")
    run = live.begin()
    world.publish("B")
    world.end(run)
    assert old == live.version_of(run)
    wait_until(lambda: world.is_pruned(old), "A is pruned here")

    live.clear(run, "third")

    wait_until(lambda: len(live.notes.of(run)) == 4, "third ran again", 240)
    assert [*((task, "A") for task in TASKS), ("third", "A")] == live.notes.of(run)
    assert "success" == live.wait_for(run, "success", "failed")


def test_the_documented_query_lists_the_versions_that_s3_must_keep(
    world: World,
) -> None:
    """
    These are the versions of runs that can be cleared, and the version parsed last.
    """
    old = world.publish("of a run")
    world.end(world.live.begin())
    new = world.publish("of no run")
    (query,) = re.findall(
        r"```sql\n(.*?);\n```",
        (ROOT / "docs/how-to/keep-runs-on-their-version.md").read_text(),
        re.DOTALL,
    )

    named = {version for (version,) in world.live.database.query(query)}

    assert {old, new} <= named <= world.source.shelf.releases.keys()


def test_a_missing_version_fails_the_task_and_runs_no_other_code(world: World) -> None:
    live = world.live
    shelf = world.source.shelf
    old = world.publish("pruned")
    run = live.begin()
    world.end(run)
    world.publish("newer")
    world.publish("newest")
    for name in shelf.releases[old].objects():
        if name.startswith("releases/"):
            shelf.remove(name)
    wait_until(lambda: world.is_pruned(old), "it is pruned here")

    live.clear(run, "third")

    assert "failed" == live.wait_for(run, "failed")
    assert [(task, "pruned") for task in TASKS] == live.notes.of(run)
    assert f"version {old} of bundle 'dags' is gone" in "".join(
        path.read_text() for path in world.home.rglob("*.log")
    )


def test_each_task_runs_its_version_despite_publishes_and_kills(
    world: World, counts: Counts
) -> None:
    """
    Publishes, rollbacks, and kills of sidecar, dag-processor and worker during runs.
    """
    live = world.live
    source = world.source
    random = Random(20)
    current = world.publish("0", **RETRIES)
    known = {current: "0"}
    for number in range(1, counts.runs + 1):
        run = live.begin()
        mark = known[live.version_of(run)]
        match number % 5:
            case 1:
                world.components.restart("scheduler")
            case 2:
                current = source.publish(live.notes.files_of(str(number), **RETRIES))
                known[current] = str(number)
            case 3:
                source.restart()
            case 4:
                world.components.restart("dag-processor")
            case _:
                source.show(current := random.choice(list(known)[-5:]))
        source.follow()
        world.end(run)
        assert {(task, mark) for task in TASKS} == set(live.notes.of(run))
        live.wait_for_version(current)


def test_a_dag_processor_callback_runs_the_version_of_its_run(world: World) -> None:
    """Must be the last test: after it, Airflow 3.3 parses the file continuously."""
    world.publish("calling", on_success_callback="called")
    run = world.live.begin()
    world.publish("silent")

    world.end(run)

    world.live.wait_for_note(run, "called")
    assert ("called", "calling") == world.live.notes.of(run)[-1]
