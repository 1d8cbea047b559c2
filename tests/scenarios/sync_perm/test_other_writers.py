"""
Other writers of the same rows, such as the web server.
"""

from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from tests.scenarios.sync_perm.conftest import StartSyncPerm
from tests.support.airflow.databases import Database
from tests.support.airflow.installed import Airflow
from tests.support.airflow.permissions import (
    add_role,
    contents,
    difference,
    grant,
    grants_on,
    null_rows,
    permission_id,
    revoke,
)
from tests.support.airflow.sync_perm import PASS_SECONDS
from tests.support.replacing import replace
from tests.support.waiting import wait_until

RESOURCES = ("Jobs", "Pools", "Variables")


@pytest.fixture
def other(database: Database) -> Iterator[Any]:
    """
    The transaction of a web server, as a cursor; the sidecar's Airflow detects
    deadlocks.
    """
    database.query(f"ALTER DATABASE {database.name} SET deadlock_timeout = '5s'")
    with closing(database.server.connect(database.name)) as connection:
        cursor = connection.cursor()
        cursor.execute("SET deadlock_timeout = '60s'")
        yield cursor


def wait_until_blocked(database: Database) -> None:
    """Wait until another process waits for the transaction."""
    sql = (
        "SELECT 1 FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock'"
    )
    wait_until(
        lambda: database.query(sql, (database.name,)), "blocked", PASS_SECONDS, 0.05
    )


def test_a_race_and_a_deadlock_with_another_writer_lose_nothing(
    airflow: Airflow,
    database: Database,
    other: Any,
    start: StartSyncPerm,
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    file = tmp_path / "roles.yaml"
    airflow.write_dags(database, home, {"a": {"Viewer": ["can_edit"]}})
    add_role(database, "team")
    grant(database, "team", "can_read", "Website")
    other.execute("BEGIN")
    other.execute("INSERT INTO ab_view_menu (id, name) VALUES (99999, 'DAG:a')")

    daemon = start(database, {"SYNC_PERM_ROLES": str(file)})
    wait_until_blocked(database)
    # Airflow 2 leaves a row without a resource, and a permission less
    other.execute("COMMIT")
    # which Airflow cleans up later: a pass that does so and fails has written something
    daemon.wait_until_judged()

    assert {("Viewer", "can_edit")} == grants_on(database, "DAG:a")
    first, middle, last = (
        "INSERT INTO ab_permission_view_role (id, permission_view_id, role_id)"
        f" SELECT {99_999 + n}, {permission_id(database, 'can_read', name)}, id"
        " FROM ab_role WHERE name = 'team'"
        for n, name in enumerate(RESOURCES)
    )
    other.execute("BEGIN")
    other.execute(middle)
    wanted = ", ".join(f"can_read on {name}" for name in RESOURCES)
    replace(file, f"roles:\n  team: {{permissions: [{wanted}]}}\n")
    wait_until_blocked(database)
    # a busy machine: it is our process otherwise
    with suppress(psycopg2.errors.DeadlockDetected):
        other.execute(first)
        other.execute(last)
        failed = daemon.wait_for_event(
            "cycle_failed", PASS_SECONDS, reason="pass_failed"
        )
        assert "deadlock detected" in failed["error"]
        assert "role team: " in failed["error"]
    other.execute("ROLLBACK")
    daemon.wait_until_good()

    ours = contents(database)
    assert all(("team", "can_read") in grants_on(database, name) for name in RESOURCES)
    assert ([], 0) == (daemon.find_events("rows_undone"), null_rows(database))
    airflow.full_sync(database, home)
    assert [] == difference(ours, contents(database))


def test_a_grant_that_another_writer_makes_meanwhile_is_no_failure(
    airflow: Airflow,
    database: Database,
    other: Any,
    start: StartSyncPerm,
    tmp_path: Path,
) -> None:
    edit = ["can_edit"]
    dags = {"a": {"Op": edit, "Viewer": edit}, "b": {"Op": edit}}
    airflow.write_dags(database, tmp_path, dags, parsed=True)
    for role, dag in ("Op", "DAG:a"), ("Viewer", "DAG:a"), ("Op", "DAG:b"):
        revoke(database, role, "can_edit", dag)
    other.execute("BEGIN; SELECT FROM ab_role WHERE name = 'Viewer' FOR UPDATE")

    daemon = start(database)
    # by then it has read what Op may do
    wait_until_blocked(database)
    grant(database, "Op", "can_edit", "DAG:b")
    other.execute("ROLLBACK")
    daemon.wait_until_good()

    assert "duplicate key" not in str(daemon.events)
