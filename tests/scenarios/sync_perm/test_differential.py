"""
The tables end as Airflow's own `sync-perm` would leave them, whatever they looked like before.
"""

import random
from pathlib import Path

import pytest

from tests.conftest import Counts, counts_of
from tests.scenarios.sync_perm.conftest import StartSyncPerm, on_airflow
from tests.scenarios.sync_perm.states import World, add_all_roles, damage
from tests.support.airflow import Airflow, SqliteDatabase, copy_postgres
from tests.support.databases import Database, Postgres
from tests.support.permissions import Contents, Metadata, contents, difference
from tests.support.sync_perm import PASS_SECONDS, SyncPerm
from tests.support.waiting import wait_until

DULL = ("http_request", "airflow_said")

# What SYNC_PERM_INCLUDE_DAGS says, as arguments of `airflow sync-perm`.
ARGUMENTS = {"true": ("--include-dags",), "false": ()}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give the test of histories as many as the run asks for; those of roles only need fewer."""
    if "history" in metafunc.fixturenames:
        number = counts_of(metafunc.config).permission_histories
        histories = [("true", i) for i in range(number)] + [
            ("false", i) for i in range(number // 4)
        ]
        metafunc.parametrize(("include_dags", "history"), histories)


def expected(airflow: Airflow, copy: Metadata, home: Path, arguments: tuple[str, ...]) -> Contents:
    """Return what Airflow itself makes of a copy."""
    airflow.run(copy, home, "airflow", "sync-perm", *arguments)
    return contents(copy)


def wait_for_contents(
    database: Metadata, wanted: Contents, story: list[str], daemon: SyncPerm
) -> None:
    """
    Wait until the tables say what is wanted.

    Raises:
        AssertionError: They do not in time; the message is what was done and what differs.
    """
    try:
        wait_until(lambda: contents(database) == wanted, "equal", PASS_SECONDS, step_seconds=0.25)
    except AssertionError:
        differences = difference(contents(database), wanted)
        events = [
            str(event)
            for event in daemon.events
            if event["event"] not in DULL and event["level"] != "debug"
        ]
        raise AssertionError("\n".join([*story, "", *differences, "", *events])) from None


@on_airflow("2.11", "2.7", "3")
def test_random_histories_end_as_airflow_would_have_it(
    airflow: Airflow,
    postgres: Postgres,
    database: Database,
    home: Path,
    tmp_path: Path,
    start: StartSyncPerm,
    counts: Counts,
    include_dags: str,
    history: int,
) -> None:
    world = World(airflow.version, random.Random(history))
    add_all_roles(database)
    story: list[str] = []
    daemon = None
    for step in range(counts.permission_steps):
        dags = world.new_dags(world.random.randrange(1, 14))
        parsed = world.random.random() < 0.3
        airflow.write_dags(database, home, dags, parsed=parsed)
        story += [f"step {step}: {parsed=} {dags}", *damage(database, world, 6)]
        copy = copy_postgres(postgres, database, tmp_path)
        wanted = expected(airflow, copy, home, ARGUMENTS[include_dags])
        postgres.drop(copy)
        if daemon is None:
            daemon = start(database, {"SYNC_PERM_INCLUDE_DAGS": include_dags})

        wait_for_contents(database, wanted, story, daemon)
    assert daemon is not None
    seen = len(daemon.events)
    daemon.sighup()
    daemon.wait_for_pass(seen)

    assert [] == difference(contents(database), wanted), daemon.log()


@pytest.mark.usefixtures("only_in_full")
def test_sqlite_ends_as_airflow_would_have_it(
    airflow: Airflow, tmp_path: Path, home: Path, start: StartSyncPerm
) -> None:
    database = airflow.new_sqlite(tmp_path / "metadata.sqlite", home)
    world = World(airflow.version, random.Random(1))
    add_all_roles(database)
    airflow.write_dags(database, home, world.new_dags(12))
    story = damage(database, world, 6)
    copy = SqliteDatabase(tmp_path / "copy.sqlite")
    copy.path.write_bytes(database.path.read_bytes())
    wanted = expected(airflow, copy, home, ("--include-dags",))

    daemon = start(database)

    wait_for_contents(database, wanted, story, daemon)
