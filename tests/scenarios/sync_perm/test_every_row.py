"""Damage to any row of Airflow's permission tables: none that Airflow would repair is missed."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from sync_perm.config import parse_url
from sync_perm.database import Database as Connection
from sync_perm.tables import Reader
from tests.scenarios.sync_perm.conftest import on_airflow
from tests.support.airflow.databases import Database
from tests.support.airflow.installed import AccessControl, Airflow
from tests.support.airflow.permissions import add_role

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
DAGS: Mapping[str, AccessControl] = {
    "ruled": {"team": ["can_read", "can_edit"], "Viewer": ["can_delete"]},
    "free": None,
    "closed": {},
}


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
    airflow: Airflow, database: Database, home: Path
) -> None:
    """The database is one that a full sync by Airflow would not change."""
    add_role(database, "team")
    airflow.write_dags(database, home, DAGS)
    airflow.full_sync(database, home)
    reader = Reader(include_dags=True, file=None, has_versions=airflow.is_3)
    for table, name in database.query(
        "SELECT CAST(conrelid::regclass AS TEXT), conname FROM pg_constraint WHERE contype = 'u'"
    ):  # it refuses some of the damage
        if table in TABLES:
            database.query(f'ALTER TABLE {table} DROP CONSTRAINT "{name}"')
    unseen, missed = [], []
    with closing(Connection(parse_url("TEST", database.url))) as connection:
        good, before = reader.poll(connection), reader.look(connection, None)
        for damage in every_damage(database):
            connection.rows("BEGIN")
            connection.rows("SET LOCAL session_replication_role = replica")
            connection.rows(damage)
            if reader.poll(connection) == good:
                unseen.append(damage)
            found = reader.look(connection, None)
            if not found.difference.items and not found.difference.failing:
                missed += [damage] if found.general == before.general else []
            connection.rows("ROLLBACK")

    assert frozenset() == before.difference.items
    assert [] == unseen
    assert [] == missed
