"""Damage to any row of Airflow's permission tables: none that Airflow would repair is missed."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from sync_perm.connection import parse_url
from sync_perm.cycle import Scope
from sync_perm.database import Database as Connection
from sync_perm.tables import Reader
from tests.scenarios.sync_perm.conftest import StartSyncPerm, on_airflow
from tests.support.airflow.databases import Database
from tests.support.airflow.installed import AccessControl, Airflow
from tests.support.airflow.permissions import add_role, contents
from tests.support.airflow.sync_perm import PASS_SECONDS
from tests.support.waiting import wait_until
from tests.sync_perm.given import KINDS

# Table → its columns with a meaning, and the table that each refers to.
TABLES: Mapping[str, Mapping[str, str]] = {
    "ab_permission_view_role": {
        "permission_view_id": "ab_permission_view",
        "role_id": "ab_role",
    },
    "ab_permission_view": {"permission_id": "ab_permission", "view_menu_id": "ab_view_menu"},
    "ab_role": {"name": ""},
    "ab_permission": {"name": ""},
    "ab_view_menu": {"name": ""},
}
# All grants are deleted in this many parts, one after the other.
PARTS = 3
DAGS: Mapping[str, AccessControl] = {
    "ruled": {"team": ["can_read", "can_edit"], "Viewer": ["can_delete"]},
    "free": None,
    "closed": {},
}


@pytest.fixture
def whole(airflow: Airflow, database: Database, home: Path) -> Database:
    """A database that a full sync by Airflow would not change."""
    add_role(database, "team")
    airflow.write_dags(database, home, DAGS)
    airflow.full_sync(database, home)
    return database


def every_damage(database: Database) -> Iterator[str]:
    """Yield SQL that deletes a row, or sets a column to another row or another name."""
    for table, columns in TABLES.items():
        for (number,) in database.query(f"SELECT id FROM {table}"):
            yield f"DELETE FROM {table} WHERE id = {number}"
            for column, other in columns.items():
                following = f"(SELECT MIN(id) FROM {other} WHERE id > {column})"
                first = f"(SELECT MIN(id) FROM {other})"
                value = f"COALESCE({following}, {first})" if other else "name || ' of old'"
                yield f"UPDATE {table} SET {column} = {value} WHERE id = {number}"


@pytest.mark.usefixtures("only_in_full")
@on_airflow("2.11", "3")
def test_each_damage_changes_the_fingerprint_and_is_seen_by_the_comparison(
    airflow: Airflow, whole: Database
) -> None:
    release = (3, 3) if airflow.is_3 else (2, 11)
    scope = Scope(KINDS, True, None, Reader(release, ""))
    for table, name in whole.query(
        "SELECT CAST(conrelid::regclass AS TEXT), conname FROM pg_constraint WHERE contype = 'u'"
    ):  # it refuses some of the damage
        if table in TABLES:
            whole.query(f'ALTER TABLE {table} DROP CONSTRAINT "{name}"')
    unseen, missed = [], []
    with closing(Connection(parse_url("TEST", whole.url))) as connection:
        good, before = scope.poll(connection), scope.look(connection, None)
        for damage in every_damage(whole):
            connection.rows("BEGIN")
            connection.rows("SET LOCAL session_replication_role = replica")
            connection.rows(damage)
            if scope.poll(connection) == good:
                unseen.append(damage)
            found = scope.look(connection, None)
            if not found.items and not found.difference.failing:
                missed += [damage] if found.general == before.general else []
            connection.rows("ROLLBACK")

    assert frozenset() == before.items
    assert [] == unseen
    assert [] == missed


@pytest.mark.usefixtures("only_in_full")
@on_airflow("2.11", "3")
def test_restores_every_lost_grant(whole: Database, start: StartSyncPerm) -> None:
    wanted = contents(whole)
    daemon = start(whole, {"SYNC_PERM_INCLUDE_DAGS": "true"}).until_good()
    for part in range(PARTS):
        whole.query(f"DELETE FROM ab_permission_view_role WHERE id % {PARTS} = {part}")
        wait_until(lambda: contents(whole) == wanted, "all is back", 2 * PASS_SECONDS)
    daemon.wait_until_good()

    assert [] == daemon.find_events("rows_undone")
