"""
Whatever the tables contain, they end as Airflow's own `sync-perm` would leave them.
"""

import random
from pathlib import Path

import pytest

from tests.conftest import Counts, counts_of
from tests.scenarios.sync_perm.conftest import INSTALLS, StartSyncPerm
from tests.scenarios.sync_perm.states import (
    MIXED_DAG_IDS,
    MIXED_ROLES,
    World,
    add_all_roles,
    damage,
)
from tests.support.airflow.databases import Database
from tests.support.airflow.installed import DATABASES, Airflow, Kind, Version, copy_of
from tests.support.airflow.permissions import Contents, contents, difference
from tests.support.airflow.sync_perm import PASS_SECONDS, SyncPerm
from tests.support.waiting import wait_until

# SYNC_PERM_INCLUDE_DAGS → arguments of `airflow sync-perm`.
ARGUMENTS = {"true": ("--include-dags",), "false": ()}
# How many histories to run on databases other than PostgreSQL.
ON_OTHERS = 2


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """
    Parametrize the histories by version and database; fewer of them sync roles only.
    """
    if "history" in metafunc.fixturenames:
        number = counts_of(metafunc.config).permission_histories
        cells: list[tuple[Version, Kind]] = [("2.11", "postgres")]
        if metafunc.config.getoption("--full"):
            cells = [
                (version, kind)
                for version, kinds in DATABASES.items()
                for kind in kinds
            ]
        params = [
            pytest.param(*cell, include_dags, history, marks=INSTALLS)
            for cell in cells
            for include_dags, histories in (("true", number), ("false", number // 4))
            for history in range(histories if cell[1] == "postgres" else ON_OTHERS)
        ]
        metafunc.parametrize(
            ("airflow", "kind", "include_dags", "history"),
            params,
            indirect=["airflow"],
            scope="session",
        )


def wait_for_contents(
    database: Database, wanted: Contents, story: list[str], daemon: SyncPerm
) -> None:
    """
    Wait for the wanted contents; an AssertionError lists the changes and the
    differences.
    """
    try:
        wait_until(
            lambda: contents(database) == wanted,
            "equal",
            PASS_SECONDS,
            step_seconds=0.25,
        )
    except AssertionError:
        events = [str(event) for event in daemon.events if event["level"] != "debug"]
        told = [*story, "", *difference(contents(database), wanted), "", *events]
        raise AssertionError("\n".join(told)) from None


def test_random_histories_end_as_airflows_own_sync_would_leave_them(
    airflow: Airflow,
    kind: Kind,
    metadata: Database,
    home: Path,
    tmp_path: Path,
    start: StartSyncPerm,
    counts: Counts,
    include_dags: str,
    history: int,
) -> None:
    world = World(airflow.version, random.Random(history))
    if kind != "postgres":
        world = World(
            airflow.version, random.Random(history), MIXED_ROLES, MIXED_DAG_IDS
        )
    add_all_roles(metadata, world)
    story: list[str] = []
    daemon = None
    for step in range(counts.permission_steps):
        dags = world.new_dags(world.random.randrange(1, 14))
        parsed = world.random.random() < 0.3
        airflow.write_dags(metadata, home, dags, parsed=parsed)
        story += [f"step {step}: {parsed=} {dags}", *damage(metadata, world, 6)]
        copy = copy_of(metadata, tmp_path)
        airflow.run(copy, home, "airflow", "sync-perm", *ARGUMENTS[include_dags])
        wanted = contents(copy)
        if daemon is None:
            daemon = start(metadata, {"SYNC_PERM_INCLUDE_DAGS": include_dags})

        wait_for_contents(metadata, wanted, story, daemon)
    assert daemon
    seen = len(daemon.events)
    daemon.sighup()
    daemon.wait_for_pass(seen)

    assert [] == difference(contents(metadata), wanted), daemon.log()
    assert "targeted" == daemon.status()["details"]["mode"]
