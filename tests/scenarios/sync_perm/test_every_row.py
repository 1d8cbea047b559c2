"""Damage to any row of Airflow's permission tables: none that Airflow would repair is missed."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from sidecar_runtime.fence import Fence
from sync_perm.airflow.installation import find_installation
from sync_perm.airflow.passes import AirflowPasses
from sync_perm.airflow_config import AirflowConfig
from sync_perm.comparison import Comparison
from sync_perm.database.connection import parse_url
from sync_perm.database.database import Database as Reader
from tests.scenarios.sync_perm.conftest import StartSyncPerm, on_airflow
from tests.support.airflow.databases import Database
from tests.support.airflow.installed import EVERY_VERSION, AccessControl, Airflow
from tests.support.airflow.permissions import add_role, contents, difference
from tests.support.airflow.sync_perm import PASS_SECONDS
from tests.support.waiting import wait_until
from tests.sync_perm.given import Sqlite

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
OTHERS = [version for version in EVERY_VERSION if version != "2.11"]
DAGS: Mapping[str, AccessControl] = {
    "ruled": {"team": ["can_read", "can_edit"], "Viewer": ["can_delete"]},
    "free": None,
    "closed": {},
}


class Damage(NamedTuple):
    """A change of one row, as SQL."""

    table: str
    number: int
    sql: str


@pytest.fixture
def whole(airflow: Airflow, database: Database, home: Path) -> Database:
    """A database that a full sync by Airflow would not change."""
    add_role(database, "team")
    airflow.write_dags(database, home, DAGS)
    airflow.full_sync(database, home)
    return database


def every_damage(mirror: Sqlite) -> Iterator[Damage]:
    """Delete each row, and set each of its columns to NULL, another row, or another name."""
    for table, columns in TABLES.items():
        for (number,) in mirror.rows(f"SELECT id FROM {table}"):
            yield Damage(table, number, f"DELETE FROM {table} WHERE id = {number}")
            for column, other in columns.items():
                values = ["name || ' of old'"]
                if other:
                    following = f"SELECT MIN(id) FROM {other} WHERE id > {column}"
                    values = ["NULL", f"COALESCE(({following}), (SELECT MIN(id) FROM {other}))"]
                for value in values:
                    changed = f"UPDATE {table} SET {column} = {value} WHERE id = {number}"
                    yield Damage(table, number, changed)


@pytest.fixture
def mirror(whole: Database, tmp_path: Path) -> Sqlite:
    """The same rows in SQLite, which takes milliseconds to read and refuses no damage."""
    copy = Sqlite(tmp_path / "mirror.sqlite")
    for table, columns in TABLES.items():
        names = ", ".join(["id", *columns])
        for row in whole.query(f"SELECT {names} FROM {table}"):
            copy.run(f"INSERT INTO {table} ({names}) VALUES ({', '.join('?' * len(row))})", *row)
    copy.run("INSERT INTO dag_version VALUES (1, 1)")
    for dag_id, digest, data in whole.query(
        "SELECT dag_id, dag_hash, CAST(data AS TEXT) FROM serialized_dag"
    ):
        copy.run(
            "INSERT INTO serialized_dag VALUES (?, ?, ?, NULL, '2024-01-01', '2024-01-01', 1)",
            *(dag_id, digest, data),
        )
    return copy


@pytest.fixture
def comparison(airflow: Airflow, whole: Database, home: Path, tmp_path: Path) -> Comparison:
    """A comparison that knows the permissions that this Airflow defines."""
    config = AirflowConfig(airflow.environment(whole.url, home))
    found = find_installation(str(airflow.bin / "airflow"), config, vouched=False)
    made = Comparison(found, include_dags=True)
    folder = tmp_path / "passes"
    folder.mkdir()
    passes = AirflowPasses(found, config, str(folder))
    made.define(passes.write_empty(parse_url("TEST", whole.url, ""), Fence(), PASS_SECONDS))
    return made


@pytest.mark.usefixtures("only_in_full")
@on_airflow("2.11", *OTHERS)
def test_detects_all_damage_that_airflow_would_repair(
    airflow: Airflow, whole: Database, mirror: Sqlite, comparison: Comparison, home: Path
) -> None:
    ((team,),) = mirror.rows("SELECT id FROM ab_role WHERE name = 'team'")
    reader = Reader(mirror.address)
    assert frozenset() == comparison.look(reader).items
    good = comparison.fingerprint(reader)
    unseen: list[Damage] = []
    called_good: list[Damage] = []
    named: list[Damage] = []
    for damage in list(every_damage(mirror)):
        (row,) = mirror.rows(f"SELECT * FROM {damage.table} WHERE id = {damage.number}")
        mirror.run(damage.sql)
        if comparison.fingerprint(reader) == good:
            unseen.append(damage)
        look = comparison.look(reader)
        if not look.shown:
            # A custom role is gone: Airflow cannot restore it either, and the DAG is reported.
            (called_good if not look.failing else named).append(damage)
        marks = ", ".join("?" * len(row))
        mirror.run(f"INSERT OR REPLACE INTO {damage.table} VALUES ({marks})", *row)
    reader.close()

    assert [] == unseen
    assert [("ab_role", team)] == sorted({(damage.table, damage.number) for damage in named})
    # A full sync by Airflow does not repair the damage that was called good.
    for damage in called_good:
        whole.query(f"SET session_replication_role = replica; {damage.sql}")
    damaged = contents(whole)
    airflow.full_sync(whole, home)
    assert [] == difference(damaged, contents(whole)), called_good


@pytest.mark.usefixtures("only_in_full")
@on_airflow("2.11", *OTHERS)
def test_restores_every_lost_grant(airflow: Airflow, whole: Database, start: StartSyncPerm) -> None:
    wanted = contents(whole)
    daemon = start(whole, {"SYNC_PERM_INCLUDE_DAGS": "true"}).until_good()
    for part in range(PARTS):
        whole.query(f"DELETE FROM ab_permission_view_role WHERE id % {PARTS} = {part}")
        wait_until(lambda: contents(whole) == wanted, "all is back", 2 * PASS_SECONDS)
    daemon.wait_until_good()

    assert [] == daemon.find_events("pass_postponed")
